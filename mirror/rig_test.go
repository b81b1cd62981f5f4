package mirror

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
)

// simulated is a cluster as one node of it sees it; the metadata is a real FSM.
type simulated struct {
	id  string
	fsm *raftfsm.FSM

	mu      sync.Mutex // guards all below
	leading uint64     // the term in which this node leads, or 0
	heard   map[string]string
	changed chan struct{}
	barrier func() error // what catching up does; nil for nothing
}

func simulate() *simulated {
	return &simulated{id: uuid.NewString(), fsm: raftfsm.New(), heard: map[string]string{}, changed: make(chan struct{})}
}

func (s *simulated) ClusterID() string { return s.id }

func (s *simulated) Leadership() cluster.Leadership {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading == 0 {
		return cluster.Leadership{NodeID: "another"}
	}
	return cluster.Leadership{NodeID: "me", Self: true, Term: s.leading}
}

func (s *simulated) Members() []cluster.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []cluster.Member
	for id, state := range s.heard {
		all = append(all, cluster.Member{NodeID: id, State: state})
	}
	return all
}

func (s *simulated) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *simulated) Barrier(context.Context) error {
	s.mu.Lock()
	barrier := s.barrier
	s.mu.Unlock()
	if barrier == nil {
		return nil
	}
	return barrier()
}

// set changes what the node sees.
func (s *simulated) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *simulated) lead(term uint64) { s.set(func() { s.leading = term }) }

func (s *simulated) hear(id, state string) { s.set(func() { s.heard[id] = state }) }

func (s *simulated) apply(t testing.TB, cmds ...*pb.Command) {
	t.Helper()
	for _, cmd := range cmds {
		if err := apply(s.fsm, cmd); err != nil {
			t.Fatal(err)
		}
	}
}

func apply(fsm *raftfsm.FSM, cmd *pb.Command) error {
	raw, err := proto.Marshal(cmd)
	if err != nil {
		return err
	}
	err, _ = fsm.Apply(&raft.Log{Data: raw}).(error)
	return err
}

func putNode(id string) *pb.Command {
	return &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{
		NodeId: id, Name: "name-of-" + id, GossipAddr: "10.0.0.1:7400", RpcAddr: "10.0.0.1:7401", HttpAddr: "10.0.0.1:7402",
		Labels: map[string]string{"zone": "a"}, Version: "v1.2.3",
	}}}}
}

func setNodeState(id string, state pb.NodeState) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: id, State: state}}}
}

func removeNode(id string) *pb.Command {
	return &pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: id}}}
}

func putProvider(id, kind, backend string, revision uint64) *pb.Command {
	p := &pb.Provider{ProviderId: id, ProviderType: kind, State: pb.ProviderState_PROVIDER_STATE_RUNNING, Revision: revision}
	if backend != "" {
		p.Config = map[string]string{"backend": backend}
	}
	return &pb.Command{Op: &pb.Command_PutProvider{PutProvider: &pb.PutProvider{Provider: p}}}
}

func removeProvider(id string) *pb.Command {
	return &pb.Command{Op: &pb.Command_RemoveProvider{RemoveProvider: &pb.RemoveProvider{ProviderId: id}}}
}

// leading returns a node that leads a cluster of two, with two providers.
func leading(t testing.TB) *simulated {
	t.Helper()
	s := simulate()
	s.apply(t, putNode("n1"), putNode("n2"), putProvider("kv", "kv", "", 1), putProvider("cache", "kv", "redis://me:secret@host:6379", 2))
	s.hear("n1", "alive")
	s.hear("n2", "alive")
	s.lead(1)
	return s
}

// running is a mirror that runs.
type running struct {
	t        testing.TB
	mirror   *Mirror
	registry *prometheus.Registry
	log      *output
	stop     func() // and wait; may be called twice
}

// run runs a mirror until the test ends.
func run(t testing.TB, s *simulated, etcd Etcd) *running {
	t.Helper()
	r := &running{t: t, registry: prometheus.NewRegistry(), log: &output{}}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	var err error
	if r.mirror, err = New(Config{Etcd: etcd, Log: log, Registerer: r.registry}, s, s.fsm); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.mirror.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		began := time.Now()
		if err := <-done; err != nil {
			t.Errorf("the mirror ended with %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the mirror took %s to end", took)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// up returns the metric.
func (r *running) up() float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "wasmatrix_etcd_mirror_up" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	r.t.Fatalf("metrics %v", families)
	return 0
}

func (r *running) waitUp() {
	r.t.Helper()
	eventually(r.t, "the mirror is up", func() bool { return r.up() == 1 })
}

// waitDown waits until it was tried in vain.
func (r *running) waitDown() {
	r.t.Helper()
	eventually(r.t, "the mirror is down", func() bool { return r.mirror.state.Load() == down && testutil.ToFloat64(r.mirror.failed) > 0 })
	if r.up() != 0 {
		r.t.Errorf("the metric is %v", r.up())
	}
}

// expected returns all that etcd should hold, as it follows from the contract and the metadata, written down apart from what
// the product does.
func (s *simulated) expected() map[string]any {
	s.mu.Lock()
	heard := maps.Clone(s.heard)
	s.mu.Unlock()
	all := map[string]any{}
	labels := func(m map[string]string) map[string]any {
		decoded := map[string]any{}
		for k, v := range m {
			decoded[k] = v
		}
		return decoded
	}
	for _, n := range s.fsm.Nodes() {
		if n.GetState() == pb.NodeState_NODE_STATE_LEFT || n.GetState() == pb.NodeState_NODE_STATE_LOST || heard[n.GetNodeId()] == "left" {
			continue
		}
		state := "dead"
		if heard[n.GetNodeId()] == "alive" {
			state = map[bool]string{false: "alive", true: "draining"}[n.GetState() == pb.NodeState_NODE_STATE_DRAINING]
		}
		all["/wasmatrix/"+s.id+"/nodes/"+n.GetNodeId()] = map[string]any{
			"node_id": n.GetNodeId(), "name": n.GetName(), "gossip_addr": n.GetGossipAddr(), "rpc_addr": n.GetRpcAddr(), "http_addr": n.GetHttpAddr(),
			"state": state, "labels": labels(n.GetLabels()), "version": n.GetVersion(),
		}
	}
	for _, p := range s.fsm.Providers() {
		all["/wasmatrix/"+s.id+"/providers/"+p.GetProviderId()] = map[string]any{
			"provider_id": p.GetProviderId(), "provider_type": p.GetProviderType(), "constraints": labels(p.GetConstraints()),
			"state":    map[pb.ProviderState]string{1: "running", 2: "stopped"}[p.GetState()],
			"revision": float64(p.GetRevision()),
		}
	}
	return all
}

// sameAs says whether etcd holds what is expected, but for the backends of providers, which it returns by key.
func sameAs(expected map[string]any, got map[string]string) (backends map[string]string, same bool) {
	backends = map[string]string{}
	if len(expected) != len(got) {
		return nil, false
	}
	for key, raw := range got {
		value := map[string]any{}
		if json.Unmarshal([]byte(raw), &value) != nil {
			return nil, false
		}
		if backend, ok := value["backend"].(string); ok {
			backends[key] = backend
			delete(value, "backend")
		}
		want, _ := json.Marshal(expected[key])
		have, _ := json.Marshal(value)
		if string(want) != string(have) {
			return nil, false
		}
	}
	return backends, true
}
