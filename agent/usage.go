package agent

import (
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

// spent is what the runs of an instance use.
type spent struct {
	mu sync.Mutex // guards what follows; nothing is called while it is held

	ended *pb.Usage      // by the runs that are over, those on other nodes and of earlier lives of this agent included; never changed
	run   *wasm.Instance // under way; nil between two
}

// usage returns what an instance has used so far, in all its runs, the one under way included; nil for nothing.
func (i *instance) usage() *pb.Usage {
	i.spent.mu.Lock()
	ended, run := i.spent.ended, i.spent.run
	i.spent.mu.Unlock()
	if run == nil {
		return ended
	}
	return withRun(ended, run.Usage())
}

// begin counts what a run uses from now on.
func (s *spent) begin(run *wasm.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = run
}

// end adds a run that is over to those before. Only the supervisor calls it.
func (s *spent) end(used wasm.Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.run = fact.AtRest(withRun(s.ended, used)), nil
}

// withRun returns what all runs have used together, the last of which has that memory now.
func withRun(before *pb.Usage, run wasm.Usage) *pb.Usage {
	return &pb.Usage{
		CpuTime:         durationpb.New(before.GetCpuTime().AsDuration() + run.CPU),
		Fuel:            before.GetFuel() + run.Fuel,
		MemoryBytes:     run.Memory,
		MemoryPeakBytes: max(before.GetMemoryPeakBytes(), run.PeakMemory),
	}
}
