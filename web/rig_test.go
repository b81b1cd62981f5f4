package web

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// plainCluster answers from plain data, over a real socket.
type plainCluster struct {
	pb.UnimplementedControlPlaneServiceServer

	recovering bool
	missing    []string
	members    []*pb.Member // nil: node a, the leader
	instances  []*pb.Instance
	broken     error         // what a list ends with, after its first page
	hold       chan struct{} // if set, ListMembers says so on it and waits for its caller to give up

	mu       sync.Mutex // guards all below
	down     error      // what every call answers, if set
	events   []*pb.Event
	changed  chan struct{} // closed with each new event, and when followers are to lose their leader
	deposed  int           // raised to end the streams of followers
	followed int           // streams of events so far
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

func (c *plainCluster) GetClusterStatus(context.Context, *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	_, _, _, down := c.state()
	return &pb.GetClusterStatusResponse{
		ClusterId: "c1", LeaderId: "id-a", LeaderName: "a", Term: 7, Recovering: c.recovering, MissingNodes: c.missing, Voters: []string{"a"},
		Members: map[string]uint32{"alive": 1}, Instances: map[string]uint32{"running": uint32(len(c.instances))}, Version: "test",
	}, down
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
	for _, i := range c.instances {
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
	if req.GetNode() == "nowhere" {
		return rpc.Errorf(rpc.NodeNotFound, "no node %q", req.GetNode())
	}
	var found []*pb.Instance
	for _, i := range c.instances {
		ended := i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_CRASHED
		if (req.GetAll() || !ended) && (req.GetName() == "" || req.GetName() == i.GetSpec().GetName()) &&
			(req.GetNode() == "" || req.GetNode() == i.GetNodeName()) {
			found = append(found, i)
		}
	}
	for from := 0; ; from += 1000 {
		page := found[min(from, len(found)):min(from+1000, len(found))]
		if from > 0 && len(page) == 0 {
			return nil
		}
		if err := stream.Send(&pb.ListInstancesResponse{Instances: page, Recovering: c.recovering, MissingNodes: c.missing}); err != nil {
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
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
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
		Addr: addr, ControlPlane: pb.NewControlPlaneServiceClient(conn), Gatherer: metrics,
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

type alwaysLeader struct{}

func (alwaysLeader) Leader() (string, bool, bool) { return "", true, true }
