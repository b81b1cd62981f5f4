package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// startPort opens a port on loopback and runs it until the test ends.
func startPort(t testing.TB) *Port {
	t.Helper()
	p, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	runPort(t, p)
	return p
}

func runPort(t testing.TB, p *Port) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// serve serves s on the gRPC side of p until the test ends.
func serve(t testing.TB, p *Port, s *grpc.Server) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(p.GRPC())
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func healthy(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// transport is Raft's own, over s; it answers every request with success.
func transport(t testing.TB, s *RaftStream) *raft.NetworkTransport {
	t.Helper()
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: 3, Timeout: 2 * time.Second, Logger: hclog.NewNullLogger(),
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case r := <-trans.Consumer():
				r.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		trans.CloseStreams()
		_ = trans.Close()
		close(stop)
		<-done
	})
	return trans
}

func appendEntries(from *raft.NetworkTransport, to *Port) error {
	var resp raft.AppendEntriesResponse
	err := from.AppendEntries("peer", raft.ServerAddress(to.Addr().String()), &raft.AppendEntriesRequest{Term: 1}, &resp)
	if err == nil && !resp.Success {
		err = errors.New("answer is not the peer's")
	}
	return err
}

// say connects to p, sends hello and gives the caller 5 s to read.
func say(t *testing.T, p *Port, hello string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte(hello)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 5 s for %s", what)
		}
	}
}

// syncBuffer is a bytes.Buffer for a logger.
type syncBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// belief is who a node thinks leads.
type belief struct {
	node *testNode
	none bool
}

// testNode is a node as far as this package goes: a port, a server, and a control plane that says
// which node served.
type testNode struct {
	pb.UnimplementedControlPlaneServiceServer

	name   string
	addr   string
	server *grpc.Server
	belief atomic.Pointer[belief]
	looks  atomic.Int64                 // how often the server asked who leads
	client pb.ControlPlaneServiceClient // asks this node

	// before runs in each handler; nil does nothing.
	before func(ctx context.Context) error

	mu      sync.Mutex // guards started
	started []string
}

func (n *testNode) Leader() (string, bool, bool) {
	n.looks.Add(1)
	b := n.belief.Load()
	if b == nil || b.none {
		return "", false, false
	}
	return b.node.addr, b.node == n, true
}

func (n *testNode) enter(ctx context.Context) error {
	if n.before == nil {
		return nil
	}
	return n.before(ctx)
}

func (n *testNode) StartInstance(ctx context.Context, req *pb.StartInstanceRequest) (*pb.StartInstanceResponse, error) {
	n.mu.Lock()
	resp := &pb.StartInstanceResponse{}
	for _, id := range req.GetInstanceIds() {
		if !slices.Contains(n.started, id) {
			n.started = append(n.started, id)
		}
		resp.Instances = append(resp.Instances, &pb.Instance{InstanceId: id, NodeName: n.name, Spec: req.GetSpec()})
	}
	n.mu.Unlock()
	return resp, n.enter(ctx)
}

func (n *testNode) QueryInstance(ctx context.Context, req *pb.QueryInstanceRequest) (*pb.QueryInstanceResponse, error) {
	if err := n.enter(ctx); err != nil {
		return nil, err
	}
	left := "none"
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline).Round(time.Second).String()
	}
	return &pb.QueryInstanceResponse{Instance: &pb.Instance{
		InstanceId: req.GetRef(), NodeName: n.name, LastError: tracing.CorrelationID(ctx) + " " + left,
	}}, nil
}

func (n *testNode) ListInstances(req *pb.ListInstancesRequest, stream grpc.ServerStreamingServer[pb.ListInstancesResponse]) error {
	for i := range 3 {
		page := make([]*pb.Instance, 1000)
		for j := range page {
			page[j] = &pb.Instance{InstanceId: fmt.Sprintf("%s-%d-%d", req.GetName(), i, j), NodeName: n.name}
		}
		if err := stream.Send(&pb.ListInstancesResponse{Instances: page}); err != nil {
			return err
		}
	}
	return n.enter(stream.Context())
}

func (n *testNode) WatchEvents(_ *pb.WatchEventsRequest, stream grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	if err := stream.Send(&pb.WatchEventsResponse{Events: []*pb.Event{{NodeId: n.name}}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (n *testNode) ListMembers(context.Context, *pb.ListMembersRequest) (*pb.ListMembersResponse, error) {
	return &pb.ListMembersResponse{Members: []*pb.Member{{Name: n.name}}}, nil
}

// startNodes starts three nodes; the first leads.
func startNodes(t testing.TB) [3]*testNode {
	t.Helper()
	return startNodesWith(t, nil)
}

func startNodesWith(t testing.TB, tracer trace.Tracer) [3]*testNode {
	t.Helper()
	var nodes [3]*testNode
	for i := range nodes {
		p := startPort(t)
		peers := NewPeers()
		t.Cleanup(func() { _ = peers.Close() })
		n := &testNode{name: fmt.Sprintf("n%d", i), addr: p.Addr().String()}
		n.server = NewServer(ServerConfig{Leader: n, Peers: peers, Tracer: tracer})
		pb.RegisterControlPlaneServiceServer(n.server, n)
		serve(t, p, n.server)
		n.client = pb.NewControlPlaneServiceClient(dial(t, n.addr))
		nodes[i] = n
	}
	elect(nodes[0], nodes[:]...)
	return nodes
}

// elect makes voters believe that leader leads.
func elect(leader *testNode, voters ...*testNode) {
	for _, v := range voters {
		v.belief.Store(&belief{node: leader})
	}
}
