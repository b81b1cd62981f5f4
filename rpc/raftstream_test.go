package rpc

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// nothing is a raft.FSM that keeps nothing.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

// voter is a real Raft voter on its own port.
type voter struct {
	port   *Port
	stream *RaftStream
	raft   *raft.Raft
}

func startVoters(t *testing.T, n int) []*voter {
	t.Helper()
	var (
		voters  []*voter
		servers []raft.Server
	)
	for range n {
		p := startPort(t)
		v := &voter{port: p, stream: p.RaftStream(p.Addr().String())}
		voters = append(voters, v)
		addr := p.Addr().String()
		servers = append(servers, raft.Server{ID: raft.ServerID(addr), Address: raft.ServerAddress(addr)})
	}
	for i, v := range voters {
		conf := raft.DefaultConfig()
		conf.LocalID = servers[i].ID
		conf.Logger = hclog.NewNullLogger()
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 300*time.Millisecond
		trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: v.stream, MaxPool: 3, Timeout: 2 * time.Second, Logger: hclog.NewNullLogger(),
		})
		store := raft.NewInmemStore()
		if err := raft.BootstrapCluster(conf, store, store, raft.NewInmemSnapshotStore(), trans, raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(conf, nothing{}, store, store, raft.NewInmemSnapshotStore(), trans)
		if err != nil {
			t.Fatal(err)
		}
		v.raft = r
		t.Cleanup(func() {
			if err := r.Shutdown().Error(); err != nil {
				t.Error(err)
			}
			trans.CloseStreams()
			_ = trans.Close()
		})
	}
	return voters
}

func leaderOf(voters []*voter) *voter {
	for _, v := range voters {
		if v.raft.State() == raft.Leader {
			return v
		}
	}
	return nil
}

// The watchdog's case: a leader whose disk hangs still sends heartbeats, and is replaced only when
// it falls silent.
func TestVotersReplaceLeaderWhoseTrafficIsCut(t *testing.T) {
	noLeaks(t)
	voters := startVoters(t, 3)
	serve(t, voters[0].port, NewServer(ServerConfig{}))
	conn := dial(t, voters[0].port.Addr().String())

	var old *voter
	waitFor(t, "a first leader", func() bool { old = leaderOf(voters); return old != nil })
	if err := old.raft.Apply([]byte("x"), time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	var rest []*voter
	for _, v := range voters {
		if v != old {
			rest = append(rest, v)
		}
	}
	old.stream.Cut()
	var next *voter
	waitFor(t, "a leader among the rest", func() bool { next = leaderOf(rest); return next != nil })
	waitFor(t, "the old leader to step down", func() bool { return old.raft.State() != raft.Leader })
	if err := healthy(t.Context(), conn); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	if err := next.raft.Apply([]byte("y"), time.Second).Error(); err != nil {
		t.Errorf("write to the new leader: %v", err)
	}
	old.stream.Restore()
	waitFor(t, "the old leader to catch up", func() bool { return old.raft.AppliedIndex() >= next.raft.AppliedIndex() })
}
