package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/internal/guest"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

const (
	starting   = pb.InstanceStatus_INSTANCE_STATUS_STARTING
	isRunning  = pb.InstanceStatus_INSTANCE_STATUS_RUNNING
	isStopped  = pb.InstanceStatus_INSTANCE_STATUS_STOPPED
	crashed    = pb.InstanceStatus_INSTANCE_STATUS_CRASHED
	restarting = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING
)

// compiled is where all tests keep compiled code, beside the guests themselves, so that each guest is
// compiled once: under the race detector that takes a large one ten seconds.
func compiled() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "wasmatrix-test-guests", "compiled")
}

// host is an agent on a real server, with clients.
type host struct {
	*Agent

	t       testing.TB
	ctx     context.Context //nolint:containedctx // of the calls that it makes; a test may give them a correlation id
	dir     string          // of the module store
	addr    string
	client  pb.NodeAgentServiceClient
	modules pb.ModuleServiceClient
}

// newHost starts an agent that reports to nobody, unless voters are given.
func newHost(t testing.TB, name string, voters VoterFinder, change func(*Config)) *host {
	t.Helper()
	if voters == nil {
		voters = newElectorate()
	}
	engine, err := wasm.New(context.Background(), wasm.Config{CacheDir: compiled()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store, err := modulestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	peers := rpc.NewPeers()
	cfg := Config{NodeID: name, NodeName: name}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg, engine, store, peers, voters)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{})
	a.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	conn, err := rpc.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the agent did not end")
		}
		server.Stop()
		for _, err := range []error{<-served, conn.Close(), peers.Close(), engine.Close(context.Background())} {
			if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				t.Error(err)
			}
		}
	})
	return &host{
		Agent: a, t: t, ctx: t.Context(), dir: dir, addr: l.Addr().String(),
		client: pb.NewNodeAgentServiceClient(conn), modules: pb.NewModuleServiceClient(conn),
	}
}

// actor is the module that does what its arguments say.
func actor(t testing.TB) []byte {
	t.Helper()
	raw, err := os.ReadFile(guest.C(t, filepath.Join("testdata", "actor.c")))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func hashOf(module []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(module)) }

// push stores a module on the host and returns its hash.
func (h *host) push(module []byte) string {
	h.t.Helper()
	if _, err := h.tryPush(module, hashOf(module)); err != nil {
		h.t.Fatalf("push: %v", err)
	}
	return hashOf(module)
}

func (h *host) tryPush(module []byte, hash string) (*pb.PushModuleResponse, error) {
	stream, err := h.modules.PushModule(h.t.Context())
	if err != nil {
		return nil, err
	}
	m := &pb.PushModuleRequest{ModuleHash: hash, SizeBytes: uint64(len(module))}
	for n := 0; n == 0 || n < len(module); n += 100_000 {
		m.Chunk = module[n:min(n+100_000, len(module))]
		if err := stream.Send(m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		m = &pb.PushModuleRequest{}
	}
	return stream.CloseAndRecv()
}

// damage changes a byte of a stored module behind the agent's back.
func (h *host) damage(hash string) {
	h.t.Helper()
	damaged := 0
	err := filepath.WalkDir(h.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil || hashOf(raw) != hash {
			return err
		}
		raw[len(raw)-1] ^= 1
		damaged++
		return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, raw, 0o600))
	})
	if err != nil || damaged != 1 {
		h.t.Fatalf("damaged %d files: %v", damaged, err)
	}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func spec(hash string, args ...string) *pb.InstanceSpec {
	return &pb.InstanceSpec{
		Name: "actor", ModuleHash: hash, Args: args, MemoryLimitBytes: 4 << 20,
		RestartPolicy: &pb.RestartPolicy{PolicyType: never},
	}
}

func withPolicy(s *pb.InstanceSpec, kind pb.PolicyType, retries uint32, backoff time.Duration) *pb.InstanceSpec {
	s.RestartPolicy = &pb.RestartPolicy{PolicyType: kind, MaxRetries: retries, Backoff: durationpb.New(backoff)}
	return s
}

var fence = &pb.Fence{Term: 1, LeaderId: "leader", LeaderAddr: "127.0.0.1:1"}

// start orders one instance and returns its record, or what kept it from starting.
func (h *host) start(s *pb.InstanceSpec, id string, generation uint64, sources ...*pb.ModuleSource) (*pb.Instance, error) {
	h.t.Helper()
	resp, err := h.client.StartInstance(h.ctx, &pb.NodeAgentServiceStartInstanceRequest{
		Fence: fence, Spec: s, Orders: []*pb.StartOrder{{InstanceId: id, Generation: generation}}, ModuleSources: sources,
	})
	if err != nil {
		return nil, err
	}
	if f := resp.GetFailures(); len(f) > 0 {
		return nil, rpc.Errorf(rpc.Code(f[0].GetErrorCode()), "%s", f[0].GetMessage())
	}
	if len(resp.GetInstances()) != 1 {
		return nil, fmt.Errorf("the answer is %v", resp)
	}
	return resp.GetInstances()[0], nil
}

func (h *host) mustStart(s *pb.InstanceSpec, id string) *pb.Instance {
	h.t.Helper()
	rec, err := h.start(s, id, 1)
	if err != nil {
		h.t.Fatalf("start: %v", err)
	}
	return rec
}

// stopOne stops an instance and returns its record, nil if there is none.
func (h *host) stopOne(id string, moved bool) *pb.Instance {
	h.t.Helper()
	began := time.Now()
	resp, err := h.client.StopInstance(h.ctx, &pb.NodeAgentServiceStopInstanceRequest{Fence: fence, InstanceIds: []string{id}, Moved: moved})
	if err != nil {
		h.t.Fatalf("stop: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		h.t.Fatalf("the stop took %s", took)
	}
	if len(resp.GetInstances()) == 0 {
		return nil
	}
	return resp.GetInstances()[0]
}

// query returns the record of an instance, nil if there is none.
func (h *host) query(id string) *pb.Instance {
	h.t.Helper()
	resp, err := h.client.QueryInstance(h.t.Context(), &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: id})
	if rpc.CodeOf(err) == rpc.InstanceNotFound {
		return nil
	}
	if err != nil {
		h.t.Fatalf("query: %v", err)
	}
	return resp.GetInstance()
}

// waitFor waits until an instance has a status, and returns its record.
func (h *host) waitFor(id string, want pb.InstanceStatus) *pb.Instance {
	h.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		seq := h.facts.position()
		rec := h.facts.get(id)
		if rec.GetStatus() == want {
			return rec
		}
		changed := h.facts.changed(seq)
		if changed == nil {
			continue
		}
		select {
		case <-changed:
		case <-deadline:
			h.t.Fatalf("instance %s is %v, want %s", id, rec, want)
		}
	}
}

// events returns the types of the events about an instance.
func (h *host) events(id string) []string {
	var kinds []string
	for _, e := range h.facts.since(0).events {
		if e.event.GetInstanceId() == id {
			kinds = append(kinds, e.event.GetType())
		}
	}
	return kinds
}

// logs returns the output of an instance, as "stream line".
func (h *host) logs(req *pb.StreamLogsRequest) []string {
	h.t.Helper()
	stream, err := h.client.StreamLogs(h.t.Context(), req)
	if err != nil {
		h.t.Fatalf("logs: %v", err)
	}
	var all []string
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			h.t.Fatalf("logs: %v", err)
		}
		for _, e := range m.GetEntries() {
			all = append(all, e.GetStream()+" "+string(e.GetLine()))
		}
	}
}

// waitForLine waits until an instance has written a line.
func (h *host) waitForLine(id, want string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := h.client.StreamLogs(ctx, &pb.StreamLogsRequest{InstanceId: id, Follow: true})
	for err == nil {
		var m *pb.StreamLogsResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		for _, e := range m.GetEntries() {
			if string(e.GetLine()) == want {
				return
			}
		}
	}
	h.t.Fatalf("instance %s does not say %q: %v", id, want, err)
}

func wantCode(t *testing.T, err error, want rpc.Code) {
	t.Helper()
	if got := rpc.CodeOf(err); got != want {
		t.Fatalf("got %s (%v), want %s", got, err, want)
	}
}
