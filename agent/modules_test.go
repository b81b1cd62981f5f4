package agent

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

var fixedTime = timestamppb.New(time.Unix(1_700_000_000, 0))

// moduleServer is a peer that serves one module, under whatever name, as badly as a test wants.
type moduleServer struct {
	pb.UnimplementedModuleServiceServer

	addr   string
	module []byte

	mu      sync.Mutex // guards what follows
	hangs   bool
	breakAt int // bytes after which the next transfers break; 0 for never
	lies    bool
	offsets []uint64 // of the transfers so far
}

func newModuleServer(t *testing.T, module []byte) *moduleServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &moduleServer{module: module, addr: l.Addr().String()}
	server := rpc.NewServer(rpc.ServerConfig{})
	pb.RegisterModuleServiceServer(server, m)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return m
}

func (m *moduleServer) hang() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hangs = true
}

func (m *moduleServer) source() *pb.ModuleSource {
	return &pb.ModuleSource{NodeId: "peer " + m.addr, RpcAddr: m.addr}
}

func (m *moduleServer) StatModule(context.Context, *pb.StatModuleRequest) (*pb.StatModuleResponse, error) {
	return &pb.StatModuleResponse{Present: true, SizeBytes: uint64(len(m.module))}, nil
}

func (m *moduleServer) FetchModule(req *pb.FetchModuleRequest, stream grpc.ServerStreamingServer[pb.FetchModuleResponse]) error {
	m.mu.Lock()
	m.offsets = append(m.offsets, req.GetOffset())
	hangs, breakAt, lies := m.hangs, m.breakAt, m.lies
	m.mu.Unlock()
	if hangs {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	rest := bytes.Clone(m.module[req.GetOffset():])
	if lies && len(rest) > 0 {
		rest[len(rest)/2] ^= 1
	}
	for sent := 0; len(rest) > 0; {
		n := min(4096, len(rest))
		if err := stream.Send(&pb.FetchModuleResponse{Chunk: rest[:n], SizeBytes: uint64(len(m.module))}); err != nil {
			return err
		}
		rest = rest[n:]
		if sent += n; breakAt > 0 && sent >= breakAt {
			return errors.New("broken by the test")
		}
	}
	return nil
}

func TestModuleIsFetchedOnceForMany(t *testing.T) {
	peer := newModuleServer(t, actor(t))
	h := newHost(t, "n1", nil, nil)
	req := &pb.NodeAgentServiceStartInstanceRequest{
		Fence: fence, Spec: spec(hashOf(peer.module), "sleep", "1000000"), ModuleSources: []*pb.ModuleSource{peer.source()},
	}
	for range 50 {
		req.Orders = append(req.Orders, &pb.StartOrder{InstanceId: newID(), Generation: 1})
	}
	resp, err := h.client.StartInstance(t.Context(), req)
	if err != nil || len(resp.GetInstances()) != 50 {
		t.Fatalf("%d started, %v, %v", len(resp.GetInstances()), err, resp.GetFailures())
	}
	if len(peer.offsets) != 1 {
		t.Fatalf("it was fetched %d times", len(peer.offsets))
	}
}

func TestBrokenTransferIsResumedElsewhere(t *testing.T) {
	module := actor(t)
	one, two := newModuleServer(t, module), newModuleServer(t, module)
	one.breakAt = 8192
	h := newHost(t, "n1", nil, nil)
	rec, err := h.start(spec(hashOf(module), "sleep", "1000000"), newID(), 1, one.source(), two.source())
	if err != nil || rec.GetStatus() != isRunning {
		t.Fatalf("%v, %v", rec, err)
	}
	if len(two.offsets) != 1 || two.offsets[0] < 4096 {
		t.Fatalf("the second source was asked for offsets %v", two.offsets)
	}
}

func TestFlakySourceAloneIsEnough(t *testing.T) {
	peer := newModuleServer(t, actor(t))
	peer.breakAt = len(peer.module) / 12 // more breaks than rounds without progress
	h := newHost(t, "n1", nil, nil)
	if _, err := h.start(spec(hashOf(peer.module), "exit", "0"), newID(), 1, peer.source()); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedModuleIsNotKeptAndAnotherSourceServes(t *testing.T) {
	module := actor(t)
	liar, honest := newModuleServer(t, module), newModuleServer(t, module)
	liar.lies = true
	h := newHost(t, "n1", nil, nil)
	if _, err := h.start(spec(hashOf(module)), newID(), 1, liar.source()); err == nil {
		t.Fatal("a damaged module was started")
	}
	if m, err := h.modules.StatModule(t.Context(), &pb.StatModuleRequest{ModuleHash: hashOf(module)}); err != nil || m.GetPresent() {
		t.Fatalf("the damaged module is kept: %v, %v", m, err)
	}
	if _, err := h.start(spec(hashOf(module), "exit", "0"), newID(), 1, liar.source(), honest.source()); err != nil {
		t.Fatal(err)
	}
}

func TestVotersAreAskedForWhatNoSourceWasNamed(t *testing.T) {
	peer := newModuleServer(t, actor(t))
	h := newHost(t, "n1", newElectorate(Voter{"v", peer.addr}), nil)
	if _, err := h.start(spec(hashOf(peer.module), "exit", "0"), newID(), 1); err != nil {
		t.Fatal(err)
	}
}

func TestSlowFetchEndsTheStart(t *testing.T) {
	peer := newModuleServer(t, actor(t))
	peer.hang()
	h := newHost(t, "n1", nil, func(c *Config) { c.StartTimeout = 300 * time.Millisecond })
	id := newID()
	_, err := h.start(spec(hashOf(peer.module)), id, 1, peer.source())
	wantCode(t, err, rpc.Timeout)
	if h.query(id) != nil {
		t.Fatal("it left a record")
	}
}

func TestPushedModuleIsOnTheVotersToo(t *testing.T) {
	two, three := newHost(t, "n2", nil, nil), newHost(t, "n3", nil, nil)
	h := newHost(t, "n1", newElectorate(Voter{"n1", "127.0.0.1:1"}, Voter{"n2", two.addr}, Voter{"n3", three.addr}, Voter{"n4", "127.0.0.1:1"}), nil)
	module := append(actor(t), customSection(make([]byte, 600_000))...)
	resp, err := h.tryPush(module, hashOf(module))
	if err != nil {
		t.Fatal(err)
	}
	got := resp.GetNodeIds()
	slices.Sort(got)
	if !slices.Equal(got, []string{"n1", "n2", "n3"}) {
		t.Fatalf("it is on %v", got)
	}
	for _, h := range []*host{h, two, three} {
		list, err := h.modules.ListModules(t.Context(), &pb.ListModulesRequest{})
		if err != nil || len(list.GetModules()) != 1 || list.GetModules()[0].GetModuleHash() != hashOf(module) || list.GetModules()[0].GetSizeBytes() != uint64(len(module)) {
			t.Fatalf("the modules of %s: %v, %v", h.cfg.NodeID, list, err)
		}
	}
	if _, err := h.tryPush(module, hashOf(module)); err != nil {
		t.Fatalf("a second push: %v", err)
	}
	offset := rand.IntN(len(module))
	stream, err := two.modules.FetchModule(t.Context(), &pb.FetchModuleRequest{ModuleHash: hashOf(module), Offset: uint64(offset)})
	if err != nil {
		t.Fatal(err)
	}
	var part []byte
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		part = append(part, m.GetChunk()...)
	}
	if !bytes.Equal(part, module[offset:]) {
		t.Fatalf("from %d on there are %d bytes, want %d", offset, len(part), len(module)-offset)
	}
}

func TestBadPushIsRefusedInWords(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	module := actor(t)
	for _, c := range []struct {
		name   string
		module []byte
		hash   string
		says   string
	}{
		{"empty", nil, hashOf(nil), "empty"},
		{"text", []byte("#!/bin/sh\necho hello\n"), "", "no webassembly module"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "", "component"},
		{"truncated head", module[:6], "", "truncated"},
		{"truncated", module[:len(module)/2], "", "truncated"},
		{"another hash", module, hashOf([]byte("other")), "not module"},
		{"no hash", module, "sha256:123", ""},
	} {
		if c.hash == "" {
			c.hash = hashOf(c.module)
		}
		_, err := h.tryPush(c.module, c.hash)
		if rpc.CodeOf(err) != rpc.InvalidRequest || !strings.Contains(strings.ToLower(err.Error()), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		if list, err := h.modules.ListModules(t.Context(), &pb.ListModulesRequest{}); err != nil || len(list.GetModules()) != 0 {
			t.Fatalf("%s: kept %v, %v", c.name, list, err)
		}
	}
	stream, err := h.modules.FetchModule(t.Context(), &pb.FetchModuleRequest{ModuleHash: hashOf(module)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, err, rpc.ModuleNotFound)
}

func TestSeveralPushesOfOneModuleAtOnce(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	module := actor(t)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := h.tryPush(module, hashOf(module)); err != nil {
				t.Errorf("push: %v", err)
			}
		})
	}
	all.Wait()
}

// customSection is a section that no engine looks into, to make a module larger.
func customSection(body []byte) []byte {
	payload := append([]byte{1, 'x'}, body...)
	section := []byte{0}
	for n := len(payload); ; n >>= 7 {
		if n < 0x80 {
			section = append(section, byte(n))
			break
		}
		section = append(section, byte(n)|0x80)
	}
	return append(section, payload...)
}
