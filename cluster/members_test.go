package cluster

import (
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

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

// Whatever a peer says of itself, it is taken in, refused or left out, and the rest goes on.
func FuzzGossipMeta(f *testing.F) {
	for _, m := range []*pb.GossipMeta{
		{}, {Name: "b3", Protocol: protocol, Version: "1.0.0", RpcPort: 7401, HttpPort: 7402, LeaderId: "x", LeaderTerm: 7},
		{Name: "b3", Protocol: protocol, Leaving: true, Voter: true, ClusterId: "c"},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, meta []byte) {
		c := &Cluster{
			cfg: Config{NodeID: "us", NodeName: "us"}.withDefaults(), members: map[string]*member{},
			changed: make(chan struct{}), fatal: make(chan error, 1),
		}
		peer := &memberlist.Node{Name: "them", Addr: net.IPv4(10, 0, 0, 7), Port: 7400, Meta: meta}
		refused := (*gossipDelegate)(c).NotifyAlive(peer)
		c.saw(peer, stateAlive)
		if m := c.members["them"]; m == nil && refused == nil {
			t.Fatal("a peer that was not refused is no member")
		}
	})
}

func FuzzPeerFile(f *testing.F) {
	f.Add([]byte(`{"a":"10.0.0.7:7400"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := openPeerFile(path)
		if err != nil {
			return // it says which file to remove
		}
		if err := p.update(map[string]string{"new": "10.0.0.8:7400"}, nil); err != nil {
			t.Fatal(err)
		}
		again, err := openPeerFile(path)
		if err != nil || !maps.Equal(again.addresses(), p.addresses()) {
			t.Fatalf("kept %v and read %v, %v", p.addresses(), again, err)
		}
	})
}
