package controlplane

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/agent"
	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/internal/guest"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

// keepModules is for how long the agents of these tests keep what nothing references.
const keepModules = time.Second

// moduleCluster is a set of real agents, all of them voters, that this node leads without being one
// of them.
type moduleCluster struct {
	simulatedCluster

	t       *testing.T
	agents  []*moduleAgent
	catalog pb.CatalogServiceClient
	log     *syncBuffer
	window  time.Duration // of recovery
	round   time.Duration

	mu      sync.Mutex // guards what follows
	voters  []string
	changed chan struct{}
}

func (c *moduleCluster) Voters() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.voters
}

func (c *moduleCluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *moduleCluster) setVoters(ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.voters = ids
	close(c.changed)
	c.changed = make(chan struct{})
}

// moduleAgent is a real agent on a real server.
type moduleAgent struct {
	*agent.Agent

	t      *testing.T
	id     string
	dir    string // of its store
	addr   string
	client pb.NodeAgentServiceClient
}

// noVoters has agents report to nobody: the leader asks.
type noVoters struct{}

func (noVoters) Voters() []agent.Voter    { return nil }
func (noVoters) Changed() <-chan struct{} { return nil }
func (noVoters) Term() uint64             { return 0 }

// newModuleCluster starts agents and a leader that looks after their modules all the time.
func newModuleCluster(t *testing.T, names ...string) *moduleCluster {
	t.Helper()
	c, peers := &moduleCluster{t: t, log: &syncBuffer{}, voters: names, changed: make(chan struct{})}, newPeers(t)
	for _, name := range names {
		a := newModuleAgent(t, name, peers)
		c.agents = append(c.agents, a)
		c.members = append(c.members, cluster.Member{NodeID: name, Name: name, RPCAddr: a.addr, State: "alive"})
	}
	return c
}

// lead begins to lead: what the agents run by then is known, and nothing else is heard of.
func (c *moduleCluster) lead() *Server {
	c.t.Helper()
	s := New(Config{
		NodeID: "me", NodeName: "me", ModuleRound: cmp.Or(c.round, keepModules/40), RecoveryWindow: cmp.Or(c.window, time.Minute),
		Log: slog.New(slog.NewTextHandler(c.log, nil)),
	}, c, raftfsm.New(), newPeers(c.t), discardEvents{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	server := rpc.NewServer(rpc.ServerConfig{})
	s.Register(server)
	c.catalog = pb.NewCatalogServiceClient(dialServed(c.t, server))
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
	return s
}

func newPeers(t *testing.T) *rpc.Peers {
	t.Helper()
	peers := rpc.NewPeers()
	t.Cleanup(func() {
		if err := peers.Close(); err != nil {
			t.Error(err)
		}
	})
	return peers
}

// dialServed serves until the test ends, and returns a connection.
func dialServed(t *testing.T, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := rpc.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(<-served, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func newModuleAgent(t *testing.T, name string, peers *rpc.Peers) *moduleAgent {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	engine, err := wasm.New(t.Context(), wasm.Config{CacheDir: filepath.Join(cache, "wasmatrix-test-guests", "compiled")})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store, err := modulestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Config{NodeID: name, NodeName: name, KeepModules: keepModules}, engine, store, peers, noVoters{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ran, engine.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	server := rpc.NewServer(rpc.ServerConfig{})
	a.Register(server)
	conn := dialServed(t, server)
	addr, _ := strings.CutPrefix(conn.Target(), "passthrough:///")
	return &moduleAgent{Agent: a, t: t, id: name, dir: dir, addr: addr, client: pb.NewNodeAgentServiceClient(conn)}
}

func (a *moduleAgent) path(hash string) string {
	return filepath.Join(a.dir, strings.TrimPrefix(hash, hashPrefix)+".wasm")
}

func (a *moduleAgent) put(module []byte) (hash string) {
	a.t.Helper()
	hash = string(modulestore.Sum(module))
	if err := os.WriteFile(a.path(hash), module, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return hash
}

func (a *moduleAgent) holds(hash string) bool {
	_, err := os.Stat(a.path(hash))
	return err == nil
}

// lose deletes a module behind the agent's back.
func (a *moduleAgent) lose(hash string) {
	a.t.Helper()
	if err := os.Remove(a.path(hash)); err != nil {
		a.t.Fatal(err)
	}
}

func (a *moduleAgent) start(hash string, args ...string) (id string) {
	a.t.Helper()
	id = uuid.Must(uuid.NewV7()).String()
	resp, err := a.client.StartInstance(a.t.Context(), &pb.NodeAgentServiceStartInstanceRequest{
		Fence: &pb.Fence{LeaderId: "before"}, Orders: []*pb.StartOrder{{InstanceId: id, Generation: 1}},
		Spec: &pb.InstanceSpec{
			Name: "web", ModuleHash: hash, Args: args, MemoryLimitBytes: 4 << 20,
			RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER},
		},
	})
	if err != nil || len(resp.GetInstances()) != 1 {
		a.t.Fatalf("start: %v, %v", resp, err)
	}
	return id
}

// waitEnded waits until an instance has ended.
func (a *moduleAgent) waitEnded(id string) {
	a.t.Helper()
	eventually(a.t, "the end of "+id, func() bool {
		resp, err := a.client.QueryInstance(a.t.Context(), &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: id})
		return err == nil && fact.Ended(resp.GetInstance().GetStatus())
	})
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), s)
}

// eventually waits for what a test is about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}

// always looks for a while that something stays so.
func always(t *testing.T, what string, over time.Duration, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(over); time.Now().Before(end); <-tick.C {
		if !holds() {
			t.Fatalf("not any more: %s", what)
		}
	}
}

func actor(t *testing.T) []byte {
	t.Helper()
	module, err := os.ReadFile(guest.Actor(t))
	if err != nil {
		t.Fatal(err)
	}
	return module
}

func TestVotersAndAgentGetBackWhatTheyLost(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2", "n3")
	one, two, three := c.agents[0], c.agents[1], c.agents[2]
	live := one.put(actor(t))
	one.start(live, "forever")
	ended := two.put(append(actor(t), 0, 3, 1, 'x', 'y')) // with a section of its own
	two.start(ended, "exit", "0")
	c.lead()
	all := func(hash string) func() bool {
		return func() bool { return one.holds(hash) && two.holds(hash) && three.holds(hash) }
	}
	eventually(t, "the module of a live instance on all voters", all(live))
	eventually(t, "the module of an ended instance on all voters", all(ended))
	one.lose(live)
	three.lose(live)
	three.lose(ended)
	eventually(t, "the module of a live instance, lost by its agent and a voter", all(live))
	eventually(t, "the module of an ended instance, lost by a voter", all(ended))
	always(t, "they hold what is referenced", 3*keepModules, func() bool { return all(live)() && all(ended)() })
}

func TestAgentWithoutAVoteHoldsOnlyWhatItRuns(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	voter, other := c.agents[0], c.agents[1]
	c.setVoters("n1")
	runs := other.put(actor(t))
	other.start(runs, "forever")
	not := voter.put(append(actor(t), 0, 3, 1, 'x', 'y'))
	voter.start(not, "forever")
	c.lead()
	eventually(t, "the voter's copy", func() bool { return voter.holds(runs) })
	other.lose(runs)
	eventually(t, "the agent's own copy", func() bool { return other.holds(runs) })
	if other.holds(not) {
		t.Fatal("an agent fetched what it does not run")
	}
}

// Whoever starts by hash what no voter holds, as nothing has referenced it, gets it from whom has it.
func TestNodeWithoutAVoteThatHoldsAModuleIsASourceOfIt(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	c.setVoters("n1")
	hash := c.agents[1].put(actor(t))
	s := c.lead()
	eventually(t, "the leader to know who holds it", func() bool {
		l, err := s.leading()
		return err == nil && slices.ContainsFunc(s.moduleSources(l, &pb.InstanceSpec{ModuleHash: hash}, nil), func(from *pb.ModuleSource) bool {
			return from.GetNodeId() == "n2"
		})
	})
}

func TestNewVoterNeedNotWaitForTheNextRound(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	hash := c.agents[0].put(actor(t))
	c.agents[0].start(hash, "forever")
	c.setVoters("n1")
	c.round = time.Hour
	c.lead()
	time.AfterFunc(keepModules/2, func() { c.setVoters("n1", "n2") }) // after the first round, most likely
	eventually(t, "the new voter's copy", func() bool { return c.agents[1].holds(hash) })
}

func TestUnreferencedModuleGoesFromAllNodes(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	one, two := c.agents[0], c.agents[1]
	referenced := one.put(actor(t))
	one.start(referenced, "forever")
	unreferenced := one.put([]byte("anything"))
	two.put([]byte("anything"))
	c.lead()
	began := time.Now()
	eventually(t, "the unreferenced module to go", func() bool { return !one.holds(unreferenced) && !two.holds(unreferenced) })
	if took := time.Since(began); took < keepModules/2 {
		t.Fatalf("it went after %s", took)
	}
	if !one.holds(referenced) || !two.holds(referenced) {
		t.Fatal("the referenced module went too")
	}
}

// secretive says which modules it holds, and not what it runs.
type secretive struct {
	pb.UnimplementedModuleServiceServer
}

func (secretive) KeepModules(context.Context, *pb.KeepModulesRequest) (*pb.KeepModulesResponse, error) {
	return &pb.KeepModulesResponse{}, nil
}

func TestNothingGoesWhileANodeHasNotSaidWhatItRuns(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	hash := c.agents[0].put([]byte("anything"))
	server := rpc.NewServer(rpc.ServerConfig{})
	pb.RegisterModuleServiceServer(server, secretive{})
	addr, _ := strings.CutPrefix(dialServed(t, server).Target(), "passthrough:///")
	c.members = append(c.members, cluster.Member{NodeID: "n3", Name: "n3", RPCAddr: addr, State: "alive"})
	c.window = 10 * time.Millisecond
	c.lead()
	always(t, "the module is held", 3*keepModules, func() bool { return c.agents[0].holds(hash) })
}

func TestModuleThatNobodyHoldsIsToldOnce(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	hash := c.agents[0].put(actor(t))
	id := c.agents[0].start(hash, "forever")
	c.agents[0].lose(hash)
	c.lead()
	const words = "no node that is there holds a module"
	eventually(t, "a warning", func() bool { return c.log.count(words) > 0 })
	if c.log.count(hash) == 0 || c.log.count("web ("+id+")") == 0 {
		t.Fatalf("it does not name module and instance: %s", c.log.buf.String())
	}
	always(t, "one warning", keepModules/2, func() bool { return c.log.count(words) == 1 })
	c.agents[1].put(actor(t))
	eventually(t, "the agent's copy", func() bool { return c.agents[0].holds(hash) })
}

func TestModuleIsRemovedUnlessItIsReferenced(t *testing.T) {
	c := newModuleCluster(t, "n1", "n2")
	live := c.agents[0].put(actor(t))
	id := c.agents[0].start(live, "forever")
	ended := c.agents[1].put(append(actor(t), 0, 3, 1, 'x', 'y'))
	c.agents[1].waitEnded(c.agents[1].start(ended, "exit", "0"))
	unused := c.agents[0].put([]byte("anything"))
	c.agents[1].put([]byte("anything"))
	c.members = append(c.members, cluster.Member{NodeID: "n3", Name: "n3", RPCAddr: "127.0.0.1:1", State: "dead"})
	c.lead()
	remove := func(ref string) (*pb.RemoveModuleResponse, error) {
		return c.catalog.RemoveModule(t.Context(), &pb.RemoveModuleRequest{Ref: ref})
	}
	var resp *pb.RemoveModuleResponse
	eventually(t, "a leader", func() (led bool) {
		var err error
		resp, err = remove(unused[:len(hashPrefix)+8])
		return err == nil
	})
	if resp.GetModuleHash() != unused || strings.Join(resp.GetNodeNames(), " ") != "n1 n2" || c.agents[0].holds(unused) || c.agents[1].holds(unused) {
		t.Fatalf("it answers %v", resp)
	}
	if f := resp.GetFailures(); len(f) != 1 || f[0].GetNodeName() != "n3" || f[0].GetErrorCode() != string(rpc.CommunicationFailure) {
		t.Fatalf("it failed on %v", f)
	}
	for _, test := range []struct {
		ref  string
		code rpc.Code
		says string
	}{
		{unused, rpc.ModuleNotFound, "n3 did not answer"},
		{"ffffffff", rpc.ModuleNotFound, "wasmatrix module ls"},
		{"", rpc.ModuleNotFound, ""},
		{"web", rpc.InvalidRequest, "no hash"},
		{live, rpc.InvalidRequest, "used by 1 live instances: web (" + id + "); stop them first"},
		{ended[len(hashPrefix):], rpc.InvalidRequest, "1 instances that ended: web ("},
	} {
		if _, err := remove(test.ref); rpc.CodeOf(err) != test.code || !strings.Contains(rpc.FromError(err).Message, test.says) {
			t.Errorf("remove %q: %v", test.ref, err)
		}
	}
	list, err := c.catalog.ListCatalog(t.Context(), &pb.ListCatalogRequest{})
	if err != nil || len(list.GetModules()) != 2 || strings.Join(list.GetSilentNodes(), " ") != "n3" {
		t.Fatalf("the catalog is %v, %v", list, err)
	}
	for _, m := range list.GetModules() {
		want := uint32(0)
		if m.GetModule().GetModuleHash() == live {
			want = 1
		}
		if m.GetInstances() != 1 || m.GetLiveInstances() != want || len(m.GetNodeNames()) == 0 || m.GetModule().GetSizeBytes() == 0 {
			t.Errorf("listed: %v", m)
		}
	}
}

func TestHashIsResolvedByItsBeginning(t *testing.T) {
	a, b := hashPrefix+"abcd1"+strings.Repeat("0", 59), hashPrefix+"abcd2"+strings.Repeat("0", 59)
	known := []string{a, b}
	for _, test := range []struct {
		ref, want string
		code      rpc.Code
	}{
		{a, a, ""},
		{"abcd1", a, ""},
		{hashPrefix + "abcd2", b, ""},
		{"abcd", "", rpc.InvalidRequest},
		{"abc", "", rpc.ModuleNotFound},
		{hashPrefix, "", rpc.ModuleNotFound},
		{"abcd3", "", rpc.ModuleNotFound},
		{"ABCD1", "", rpc.InvalidRequest},
		{a + "0", "", rpc.InvalidRequest},
	} {
		got, err := resolveModule(test.ref, known, nil)
		if got != test.want || rpc.CodeOf(err) != test.code {
			t.Errorf("%s is %q, %v", test.ref, got, err)
		}
	}
}
