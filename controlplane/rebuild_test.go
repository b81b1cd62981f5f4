package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// simulatedAgent serves a list of instances, as a real agent with so many would, over a real socket.
type simulatedAgent struct {
	pb.UnimplementedNodeAgentServiceServer

	bootID string
	all    []*pb.Instance
}

func (a *simulatedAgent) ListInstances(req *pb.NodeAgentServiceListInstancesRequest, stream pb.NodeAgentService_ListInstancesServer) error {
	if req.GetHaveBootId() == a.bootID {
		return stream.Send(&pb.NodeAgentServiceListInstancesResponse{BootId: a.bootID, Seq: 1, Unchanged: true})
	}
	for page := range slices.Chunk(a.all, pageSize) {
		if err := stream.Send(&pb.NodeAgentServiceListInstancesResponse{BootId: a.bootID, Seq: 1, Instances: page}); err != nil {
			return err
		}
	}
	return nil
}

// simulatedCluster is a membership that does not change and that this node leads.
type simulatedCluster struct {
	members []cluster.Member
	deposed *atomic.Bool // set, it leads no more and does not know; nil where that does not happen
}

func (c simulatedCluster) Leadership() cluster.Leadership {
	return cluster.Leadership{NodeID: "me", Term: 1, Self: true}
}
func (c simulatedCluster) Members() []cluster.Member          { return c.members }
func (c simulatedCluster) Voters() []string                   { return []string{"me"} }
func (c simulatedCluster) ClusterID() string                  { return "simulated" }
func (c simulatedCluster) Changed() <-chan struct{}           { return make(chan struct{}) }
func (c simulatedCluster) Barrier(context.Context) error      { return nil }
func (c simulatedCluster) VerifyLeader(context.Context) error { return nil }
func (c simulatedCluster) Quorum() cluster.Quorum             { return cluster.Quorum{} }

func (c simulatedCluster) Term() uint64 {
	if c.deposed != nil && c.deposed.Load() {
		return 2
	}
	return 1
}

func (c simulatedCluster) Apply(context.Context, *pb.Command) error {
	return errors.New("a simulated cluster has no log")
}

func (c simulatedCluster) TransferLeadership(context.Context) error {
	return errors.New("a simulated cluster has one leader")
}

type discardEvents struct{}

func (discardEvents) RecordEvent(*pb.Event) {}
func (discardEvents) Witnessed(string) bool { return false }

func serveAgents(tb testing.TB, nodes, each int) simulatedCluster {
	tb.Helper()
	var c simulatedCluster
	for n := range nodes {
		nodeID := fmt.Sprint("node", n)
		a := &simulatedAgent{bootID: uuid.NewString()}
		for range each {
			i := instance(uuid.NewString(), nodeID, 1, 3, running)
			i.Spec = &pb.InstanceSpec{
				Name: "web", ModuleHash: "sha256:" + fmt.Sprintf("%064d", 0), MemoryLimitBytes: 64 << 20,
				RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS},
			}
			a.all = append(a.all, i)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		server := grpc.NewServer()
		pb.RegisterNodeAgentServiceServer(server, a)
		done := make(chan error, 1)
		go func() { done <- server.Serve(ln) }()
		tb.Cleanup(func() {
			server.Stop()
			if err := <-done; err != nil {
				tb.Error(err)
			}
		})
		c.members = append(c.members, cluster.Member{NodeID: nodeID, Name: nodeID, RPCAddr: ln.Addr().String(), State: "alive"})
	}
	return c
}

// rebuild leads until the view is rebuilt, and returns the server and how long that took.
func rebuild(tb testing.TB, c simulatedCluster, peers *rpc.Peers) (*Server, time.Duration) {
	tb.Helper()
	s := New(Config{NodeID: "me", NodeName: "me", RecoveryWindow: time.Minute, Log: slog.New(slog.DiscardHandler)}, c, raftfsm.New(), peers, discardEvents{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			tb.Fatal(err)
		}
	}()
	for {
		if l, err := s.leading(); err == nil {
			if err := l.waitRecovered(ctx); err != nil {
				tb.Fatal(err)
			}
			return s, time.Since(began)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestNewLeaderKnowsWhatAllAgentsRun(t *testing.T) {
	c := serveAgents(t, 5, 2500)
	peers := rpc.NewPeers()
	defer func() {
		if err := peers.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, _ := rebuild(t, c, peers)
	if n := s.view.counts()["running"]; n != 5*2500 {
		t.Fatalf("the new leader knows of %d instances, want %d", n, 5*2500)
	}
}

// The figure of the issue: 100,000 facts from 10 agents in at most 1 s.
func BenchmarkRebuild100kFactsFrom10Agents(b *testing.B) {
	c := serveAgents(b, 10, 10_000)
	peers := rpc.NewPeers()
	defer func() {
		if err := peers.Close(); err != nil {
			b.Error(err)
		}
	}()
	for b.Loop() {
		s, took := rebuild(b, c, peers)
		if n := s.view.counts()["running"]; n != 100_000 {
			b.Fatalf("%d facts", n)
		}
		b.ReportMetric(float64(took.Milliseconds()), "ms/rebuild")
	}
}
