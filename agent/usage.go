package agent

import (
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// spent is what the runs of an instance that have ended used, those on other nodes and of earlier lives of this agent included.
type spent struct {
	mu sync.Mutex // guards what follows; nothing is called while it is held

	ended *pb.Usage
}

// usage returns what an instance has used so far, in all its runs, the one under way included; nil for nothing.
func (i *instance) usage() *pb.Usage {
	i.spent.mu.Lock()
	defer i.spent.mu.Unlock()
	return proto.CloneOf(i.spent.ended)
}
