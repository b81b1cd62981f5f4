package controlplane

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// lateNetwork is between the leader and a real agent. While it is slow, orders to start stay in it, for the
// test to deliver.
type lateNetwork struct {
	pb.UnimplementedNodeAgentServiceServer

	agent pb.NodeAgentServiceClient

	mu    sync.Mutex // guards what follows
	slow  bool
	stuck []*pb.NodeAgentServiceStartInstanceRequest
}

func (n *lateNetwork) StartInstance(ctx context.Context, req *pb.NodeAgentServiceStartInstanceRequest) (*pb.NodeAgentServiceStartInstanceResponse, error) {
	n.mu.Lock()
	slow := n.slow
	if slow {
		n.stuck = append(n.stuck, req)
	}
	n.mu.Unlock()
	if slow {
		<-ctx.Done()
		return nil, rpc.Errorf(rpc.Timeout, "the network is slow: %w", ctx.Err())
	}
	return n.agent.StartInstance(ctx, req)
}

func (n *lateNetwork) StopInstance(ctx context.Context, req *pb.NodeAgentServiceStopInstanceRequest) (*pb.NodeAgentServiceStopInstanceResponse, error) {
	return n.agent.StopInstance(ctx, req)
}

func (n *lateNetwork) QueryInstance(ctx context.Context, req *pb.NodeAgentServiceQueryInstanceRequest) (*pb.NodeAgentServiceQueryInstanceResponse, error) {
	return n.agent.QueryInstance(ctx, req)
}

func (n *lateNetwork) ListInstances(req *pb.NodeAgentServiceListInstancesRequest, stream grpc.ServerStreamingServer[pb.NodeAgentServiceListInstancesResponse]) error {
	list, err := n.agent.ListInstances(stream.Context(), req)
	if err != nil {
		return err
	}
	for page, err := list.Recv(); err == nil; page, err = list.Recv() {
		if err := stream.Send(page); err != nil {
			return err
		}
	}
	return nil
}

// deliver has the agent hear now of what got stuck, and returns what it answers.
func (n *lateNetwork) deliver(t *testing.T) (all []*pb.NodeAgentServiceStartInstanceResponse) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, req := range n.stuck {
		resp, err := n.agent.StartInstance(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, resp)
	}
	n.slow, n.stuck = false, nil
	return all
}

// leadLateAgent leads a cluster of this node, which is its own agent's too.
func leadLateAgent(t *testing.T) (*Server, *lateNetwork, *moduleAgent) {
	t.Helper()
	a := newModuleAgent(t, "me", newPeers(t))
	network := &lateNetwork{agent: a.client}
	g := rpc.NewServer(rpc.ServerConfig{})
	pb.RegisterNodeAgentServiceServer(g, network)
	addr := dialServed(t, g).Target()[len("passthrough:///"):]

	fsm := raftfsm.New()
	raw, err := proto.Marshal(&pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{
		NodeId: "me", Name: "me", RpcAddr: addr, State: pb.NodeState_NODE_STATE_ACTIVE, Limits: &pb.NodeLimits{MaxInstances: 10, MaxMemoryBytes: 1 << 30},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err, _ := fsm.Apply(&raft.Log{Index: 1, Data: raw}).(error); err != nil {
		t.Fatal(err)
	}
	c := simulatedCluster{members: []cluster.Member{{NodeID: "me", Name: "me", RPCAddr: addr, State: "alive"}}, deposed: new(atomic.Bool)}
	s := New(Config{NodeID: "me", NodeName: "me", Log: slog.New(slog.DiscardHandler)}, c, fsm, newPeers(t), discardEvents{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the leader knows what runs", func() bool {
		l, err := s.leading()
		return err == nil && !l.recovering()
	})
	return s, network, a
}

// startUnanswered orders a start whose order gets stuck, until the caller goes away.
func startUnanswered(t *testing.T, s *Server, network *lateNetwork, module string) *pb.StartInstanceRequest {
	t.Helper()
	network.mu.Lock()
	network.slow = true
	network.mu.Unlock()
	req := &pb.StartInstanceRequest{
		InstanceIds: []string{uuid.Must(uuid.NewV7()).String()},
		Spec:        &pb.InstanceSpec{Name: "web", ModuleHash: module, Args: []string{"sleep", "100000"}, MemoryLimitBytes: 4 << 20},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if resp, err := s.StartInstance(ctx, req); err == nil && len(resp.GetInstances()) > 0 {
		t.Fatalf("the order got stuck, and the answer is %v", resp)
	}
	eventually(t, "the end of the order", func() bool {
		l, err := s.leading()
		if err != nil {
			return false
		}
		_, noted := l.longestUnanswered()
		return noted
	})
	return req
}

func TestStartThatNobodyAnsweredIsGivenUpAndItsOrderIsRefused(t *testing.T) {
	s, network, a := leadLateAgent(t)
	module := a.put(actor(t))
	req := startUnanswered(t, s, network, module)
	id := req.GetInstanceIds()[0]
	if i := s.view.get(id); i.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_STARTING {
		t.Fatalf("until it is given up it counts, and it is %v", i)
	}
	l, err := s.leading()
	if err != nil {
		t.Fatal(err)
	}
	s.giveUp(l, id)
	if i := s.view.get(id); i != nil {
		t.Fatalf("it is still listed: %v", i)
	}
	for _, resp := range network.deliver(t) {
		if len(resp.GetInstances()) > 0 || resp.GetFailures()[0].GetRefusedGeneration() != 1 {
			t.Fatalf("the order that came late is answered with %v", resp)
		}
	}
	// Its caller may ask again at any time, with the same id.
	resp, err := s.StartInstance(t.Context(), req)
	if err != nil || len(resp.GetInstances()) != 1 {
		t.Fatalf("the start is answered with %v, %v", resp, err)
	}
	if i := resp.GetInstances()[0]; i.GetGeneration() != 2 || i.GetStatus() != running {
		t.Fatalf("want it to run in generation 2, got %v", i)
	}
}

func TestStartThatIsAskedForAgainIsNotGivenUp(t *testing.T) {
	s, network, a := leadLateAgent(t)
	req := startUnanswered(t, s, network, a.put(actor(t)))
	network.deliver(t)
	resp, err := s.StartInstance(t.Context(), req)
	if err != nil || len(resp.GetInstances()) != 1 {
		t.Fatalf("the start is answered with %v, %v", resp, err)
	}
	l, err := s.leading()
	if err != nil {
		t.Fatal(err)
	}
	id := req.GetInstanceIds()[0]
	s.giveUp(l, id)
	if i := s.view.get(id); i.GetStatus() != running || i.GetGeneration() != 1 {
		t.Fatalf("it was acknowledged, and is now %v", i)
	}
}

// TestStopOvertakesTheStart: the order to start arrives after the stop, and so does a retry.
func TestStopOvertakesTheStart(t *testing.T) {
	s, network, a := leadLateAgent(t)
	req := startUnanswered(t, s, network, a.put(actor(t)))
	id := req.GetInstanceIds()[0]
	network.mu.Lock()
	network.slow = false
	network.mu.Unlock()
	resp, err := s.StopInstance(t.Context(), &pb.StopInstanceRequest{Refs: []string{id}})
	if err != nil || len(resp.GetInstances()) != 1 || resp.GetInstances()[0].GetStatus() != stopped {
		t.Fatalf("the stop is answered with %v, %v", resp, err)
	}
	network.deliver(t)
	again, err := s.StartInstance(t.Context(), req)
	if err != nil || len(again.GetInstances()) != 1 || again.GetInstances()[0].GetStatus() != stopped {
		t.Fatalf("the retried start of a stopped instance is answered with %v, %v", again, err)
	}
	if rec, err := a.client.QueryInstance(t.Context(), &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: id}); err != nil || rec.GetInstance().GetStatus() != stopped {
		t.Fatalf("the agent has %v, %v", rec, err)
	}
}
