package cluster

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestNodeOfAnotherProtocolIsRefusedWithBothVersions(t *testing.T) {
	c := &Cluster{cfg: Config{NodeID: "us", NodeName: "us"}, members: map[string]*member{}}
	peer := &memberlist.Node{Name: "them", Addr: net.IPv4(10, 0, 0, 7), Port: 7400}
	meta := &pb.GossipMeta{Name: "b3", Protocol: protocol + 1, Version: "9.9.9"}
	err := c.compatible(peer, meta)
	var other *VersionError
	if !errors.As(err, &other) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{`"b3"`, "10.0.0.7:7400", "9.9.9", "upgrade the older one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %q", want, err)
		}
	}
	meta.Protocol = protocol
	if err := c.compatible(peer, meta); err != nil {
		t.Fatalf("the same protocol: %v", err)
	}
}
