package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// patience is how long a test waits for what must come; long, as tests share two cores.
const patience = 20 * time.Second

var lastHost atomic.Uint32

// host returns a loopback address that no other node of this test run has.
func host() string {
	n := lastHost.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", 60+n/60000, n/250%240+1, n%250+1)
}

// testNode is one cluster part with its own port, as a process would have it.
type testNode struct {
	*Cluster
	fsm    *raftfsm.FSM
	stream *streams
	cfg    Config
	ended  chan error // what Run returned
	kill   func()
}

// streams are those that a node's Raft has had, one after the other; a test cuts the present one.
type streams struct {
	open func() *rpc.RaftStream
	now  atomic.Pointer[rpc.RaftStream]
}

func (s *streams) next() StreamLayer {
	s.now.Store(s.open())
	return s.now.Load()
}

func (s *streams) Cut()     { s.now.Load().Cut() }
func (s *streams) Restore() { s.now.Load().Restore() }

func config(t *testing.T, name string, join ...string) Config {
	t.Helper()
	ip := host()
	return Config{
		NodeID: uuid.NewString(), NodeName: name, Version: "test", DataDir: t.TempDir(),
		Bind: ip, Advertise: ip, GossipPort: 7400, RPCPort: 7401, HTTPPort: 7402, Join: join,
		Log: slog.New(slog.DiscardHandler),
	}
}

// start runs a node until the test ends or it is killed.
func start(t *testing.T, cfg Config) *testNode {
	t.Helper()
	n := &testNode{cfg: cfg, fsm: raftfsm.New(), ended: make(chan error, 1)}
	port, err := rpc.Listen(net.JoinHostPort(cfg.Bind, "7401"), cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	n.stream = &streams{open: func() *rpc.RaftStream { return port.RaftStream(net.JoinHostPort(cfg.Advertise, "7401")) }}
	if n.Cluster, err = New(cfg, n.fsm, n.stream.next); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- port.Run(ctx) }()
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.ended <- n.Run(ctx)
	}()
	var once atomic.Bool
	n.kill = func() {
		if once.Swap(true) {
			return
		}
		n.stream.Cut() // first, so that nothing orderly happens any more
		cancel()
		<-done
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", cfg.NodeName, err)
		}
		if err := <-served; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the port of %s: %v", cfg.NodeName, err)
		}
		if err := port.Close(); err != nil {
			t.Errorf("close the port of %s: %v", cfg.NodeName, err)
		}
	}
	t.Cleanup(n.kill)
	return n
}

func gossipAddr(cfg Config) string { return net.JoinHostPort(cfg.Advertise, "7400") }

// founded starts a cluster of n nodes and waits until all know the leader and the voters are chosen.
func founded(t *testing.T, n int) []*testNode {
	t.Helper()
	nodes := []*testNode{start(t, config(t, "n0"))}
	for i := 1; i < n; i++ {
		nodes = append(nodes, start(t, config(t, fmt.Sprint("n", i), gossipAddr(nodes[0].cfg))))
	}
	waitSettled(t, nodes)
	return nodes
}

func waitSettled(t *testing.T, nodes []*testNode) {
	t.Helper()
	for _, n := range nodes {
		waitFor(t, n.cfg.NodeName+" to see a settled cluster", func() string {
			alive := 0
			for _, m := range n.Members() {
				if m.State == stateAlive {
					alive++
				}
			}
			leader := n.Leadership()
			if want := target(3, len(nodes)); alive != len(nodes) || leader.NodeID == "" || leader.Addr == "" || len(n.Voters()) != want {
				return fmt.Sprintf("%d of %d alive, leader %+v, voters %v", alive, len(nodes), leader, n.Voters())
			}
			return ""
		})
	}
}

// waitFor waits until unmet is empty: what is still in the way.
func waitFor(t *testing.T, what string, unmet func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		reason := unmet()
		if reason == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %s", patience, what, reason)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func leaderOf(t *testing.T, nodes []*testNode) *testNode {
	t.Helper()
	var leader *testNode
	waitFor(t, "a leader", func() string {
		for _, n := range nodes {
			if n.Leadership().Self {
				leader = n
				return ""
			}
		}
		return "none"
	})
	return leader
}

func without(nodes []*testNode, gone *testNode) []*testNode {
	var rest []*testNode
	for _, n := range nodes {
		if n != gone {
			rest = append(rest, n)
		}
	}
	return rest
}

// again is the configuration of a node that comes back, at another address.
func again(cfg Config) Config {
	cfg.Bind = host()
	cfg.Advertise = cfg.Bind
	return cfg
}
