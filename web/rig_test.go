package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// plainCluster answers from plain data, over a real socket.
type plainCluster struct {
	pb.UnimplementedControlPlaneServiceServer
	pb.UnimplementedProviderServiceServer

	recovering bool
	missing    []string
	members    []*pb.Member                 // nil: node a, the leader
	status     *pb.GetClusterStatusResponse // nil: that of node a; the instances are counted
	providers  []*pb.ProviderStatus
	history    *pb.GetHistoryResponse
	logs       map[string][]*pb.LogEntry // by instance
	broken     error                     // what a list ends with, after its first page
	hold       chan struct{}             // if set, ListMembers says so on it and waits for its caller to give up

	mu        sync.Mutex // guards all below
	instances []*pb.Instance
	down      error // what every call answers, if set
	events    []*pb.Event
	changed   chan struct{} // closed with each new event, and when followers are to lose their leader
	deposed   int           // raised to end the streams of followers
	followed  int           // streams of events so far
	listed    int           // lists of instances so far
}

func (c *plainCluster) state() (events []*pb.Event, deposed int, changed <-chan struct{}, down error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.events, c.deposed, c.changed, c.down
}

func (c *plainCluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	if c.changed != nil {
		close(c.changed)
	}
	c.changed = make(chan struct{})
}

func (c *plainCluster) happen(events ...*pb.Event) {
	c.change(func() { c.events = append(c.events, events...) })
}

func (c *plainCluster) depose() { c.change(func() { c.deposed++ }) }

func (c *plainCluster) setDown(err error) { c.change(func() { c.down = err }) }

// replace puts a record in the place of the one with its id.
func (c *plainCluster) replace(one *pb.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instances = slices.Clone(c.instances)
	at := slices.IndexFunc(c.instances, func(i *pb.Instance) bool { return i.GetInstanceId() == one.GetInstanceId() })
	c.instances[at] = one
}

func (c *plainCluster) all() []*pb.Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.instances)
}

func (c *plainCluster) GetClusterStatus(context.Context, *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	_, _, _, down := c.state()
	counts := map[string]uint32{}
	for _, i := range c.all() {
		counts[api.StatusName(i.GetStatus())]++
	}
	if c.status != nil {
		status := proto.Clone(c.status).(*pb.GetClusterStatusResponse)
		status.Instances = counts
		return status, down
	}
	return &pb.GetClusterStatusResponse{
		ClusterId: "c1", ClusterName: "tests", LeaderId: "id-a", LeaderName: "a", Term: 7, Recovering: c.recovering, MissingNodes: c.missing, Voters: []string{"a"},
		Members: map[string]uint32{"alive": 1}, Instances: counts, Version: "test",
	}, down
}

func (c *plainCluster) ListProviders(context.Context, *pb.ListProvidersRequest) (*pb.ListProvidersResponse, error) {
	_, _, _, down := c.state()
	return &pb.ListProvidersResponse{Providers: c.providers}, down
}

func (c *plainCluster) GetHistory(context.Context, *pb.GetHistoryRequest) (*pb.GetHistoryResponse, error) {
	_, _, _, down := c.state()
	if c.history == nil && down == nil { // as a leader of an older version
		return nil, status.Error(codes.Unimplemented, "unknown method GetHistory")
	}
	return c.history, down
}

// FollowLogs streams the lines of an instance; they end with it, and a follower waits.
func (c *plainCluster) FollowLogs(req *pb.FollowLogsRequest, stream pb.ControlPlaneService_FollowLogsServer) error {
	if _, err := c.QueryInstance(stream.Context(), &pb.QueryInstanceRequest{Ref: req.GetRef()}); err != nil {
		return err
	}
	sent := 0
	for {
		_, _, changed, down := c.state()
		if down != nil {
			return down
		}
		c.mu.Lock()
		lines := c.logs[req.GetRef()]
		c.mu.Unlock()
		if sent == 0 && req.GetTail() > 0 {
			sent = max(0, len(lines)-int(req.GetTail()))
		}
		if sent < len(lines) {
			if err := stream.Send(&pb.FollowLogsResponse{Entries: lines[sent:]}); err != nil {
				return err
			}
			sent = len(lines)
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// write has an instance write a line.
func (c *plainCluster) write(id, stream string, line []byte) {
	c.change(func() {
		if c.logs == nil {
			c.logs = map[string][]*pb.LogEntry{}
		}
		c.logs[id] = append(slices.Clone(c.logs[id]), &pb.LogEntry{
			Time: timestamppb.New(noon), Stream: stream, Line: line, Seq: uint64(len(c.logs[id]) + 1),
		})
	})
}

func (c *plainCluster) ListMembers(ctx context.Context, _ *pb.ListMembersRequest) (*pb.ListMembersResponse, error) {
	if c.hold != nil {
		c.hold <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_, _, _, down := c.state()
	members := c.members
	if members == nil {
		members = []*pb.Member{{NodeId: "id-a", Name: "a", Role: "leader", State: "alive"}}
	}
	return &pb.ListMembersResponse{Members: members}, down
}

func (c *plainCluster) QueryInstance(_ context.Context, req *pb.QueryInstanceRequest) (*pb.QueryInstanceResponse, error) {
	for _, i := range c.all() {
		if i.GetInstanceId() == req.GetRef() {
			return &pb.QueryInstanceResponse{Instance: i}, nil
		}
	}
	return nil, rpc.Errorf(rpc.InstanceNotFound, "no instance %q", req.GetRef()).With("ref", req.GetRef())
}

func (c *plainCluster) ListInstances(req *pb.ListInstancesRequest, stream pb.ControlPlaneService_ListInstancesServer) error {
	if _, _, _, down := c.state(); down != nil {
		return down
	}
	c.mu.Lock()
	c.listed++
	c.mu.Unlock()
	if req.GetNode() == "nowhere" {
		return rpc.Errorf(rpc.NodeNotFound, "no node %q", req.GetNode())
	}
	found, total := fact.Select(slices.DeleteFunc(c.all(), func(i *pb.Instance) bool {
		return req.GetName() != "" && req.GetName() != i.GetSpec().GetName() ||
			req.GetNode() != "" && req.GetNode() != i.GetNodeName() && req.GetNode() != i.GetNodeId()
	}), req)
	for from := 0; ; from += 1000 {
		page := found[min(from, len(found)):min(from+1000, len(found))]
		if from > 0 && len(page) == 0 {
			return nil
		}
		some := &pb.ListInstancesResponse{Instances: page, Recovering: c.recovering, MissingNodes: c.missing}
		if from == 0 {
			some.Total = proto.Uint32(uint32(total))
		}
		if err := stream.Send(some); err != nil {
			return err
		}
		if c.broken != nil {
			return c.broken
		}
	}
}

// WatchEvents streams as the product does: the first batch by time, then what comes as it comes.
func (c *plainCluster) WatchEvents(req *pb.WatchEventsRequest, stream pb.ControlPlaneService_WatchEventsServer) error {
	c.mu.Lock()
	c.followed++
	c.mu.Unlock()
	_, reign, _, _ := c.state()
	position := 0
	for first := true; ; first = false {
		events, deposed, changed, down := c.state()
		switch {
		case down != nil:
			return down
		case deposed != reign:
			return rpc.Errorf(rpc.NoLeader, "this node leads no more")
		}
		for _, e := range events[position:] {
			if first && req.GetSince() != nil && !e.GetTime().AsTime().After(req.GetSince().AsTime()) {
				continue
			}
			if err := stream.Send(&pb.WatchEventsResponse{Events: []*pb.Event{e}}); err != nil {
				return err
			}
		}
		position = len(events)
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// event is the nth of a source, at a second of a fixed day.
func event(source string, n int, second int64, kind string) *pb.Event {
	return &pb.Event{
		EventId: source + "/" + strconv.Itoa(n), NodeId: source, Type: kind,
		Time: &timestamppb.Timestamp{Seconds: 1_800_000_000 + second},
	}
}

// serve runs a server over a cluster, and returns its base URL.
func serve(t *testing.T, c *plainCluster) string {
	t.Helper()
	return run(t, newServer(t, "127.0.0.1:0", c))
}

// newServer returns a server that asks a cluster behind a real gRPC server, and does not run yet.
func newServer(t *testing.T, addr string, c *plainCluster) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := rpc.NewServer(rpc.ServerConfig{Leader: alwaysLeader{}, Peers: rpc.NewPeers()})
	pb.RegisterControlPlaneServiceServer(g, c)
	pb.RegisterProviderServiceServer(g, c)
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // that is a test that was quicker
			t.Error(err)
		}
	})
	return over(t, addr, ln.Addr().String())
}

// over returns a server that asks the node at an rpc address.
func over(t *testing.T, addr, rpcAddr string) *Server {
	t.Helper()
	conn, err := rpc.Dial(rpcAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "wasmatrix_test", Help: "A test's."}, func() float64 { return 7 }))
	return New(Config{
		Addr: addr, ControlPlane: pb.NewControlPlaneServiceClient(conn), Providers: pb.NewProviderServiceClient(conn), Gatherer: metrics,
		NodeName: "b", Version: "test", Log: slog.New(slog.DiscardHandler),
	})
}

// run runs a server until the test ends.
func run(t *testing.T, s *Server) string {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String()
}

// errDown is what a cluster without a leader says.
var errDown = rpc.Errorf(rpc.NoLeader, "nobody leads")

type alwaysLeader struct{}

func (alwaysLeader) Leader() (string, bool, bool) { return "", true, true }
