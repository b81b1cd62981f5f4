package controlplane

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// What must not run twice: the leader's side, beside the time that it lets pass (contact_test.go).

// leads returns a leader of the nodes me, n1, n2 and n3, all of which have told it what they run. Nobody is called.
func leads(t *testing.T) (*Server, *lead, simulatedCluster) {
	t.Helper()
	fsm, c := raftfsm.New(), simulatedCluster{}
	l := &lead{
		ctx: t.Context(), fence: &pb.Fence{Term: 1, LeaderId: "me"}, began: time.Now(), recovered: make(chan struct{}), moreUnanswered: make(chan struct{}, 1),
		answered: map[string]struct{}{}, starts: map[string]*startCall{}, granted: map[grant]time.Time{}, stopping: map[string]int{}, unanswered: map[string]time.Time{},
	}
	close(l.recovered)
	for _, id := range []string{"me", "n1", "n2", "n3"} {
		write(t, fsm, &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{
			NodeId: id, Name: id, State: pb.NodeState_NODE_STATE_ACTIVE, Limits: &pb.NodeLimits{MaxInstances: 10, MaxMemoryBytes: 1 << 30},
		}}}})
		c.members = append(c.members, cluster.Member{NodeID: id, Name: id, State: "alive"})
		l.answered[id] = struct{}{}
	}
	s := New(Config{NodeID: "me", NodeName: "me", Log: slog.New(slog.DiscardHandler)}, c, fsm, rpc.NewPeers(), discardEvents{})
	s.setLead(l)
	return s, l, c
}

// write applies a command as Raft does.
func write(t *testing.T, fsm *raftfsm.FSM, cmd *pb.Command) {
	t.Helper()
	raw, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err, _ := fsm.Apply(&raft.Log{Data: raw}).(error); err != nil {
		t.Fatal(err)
	}
}

// lose declares a node lost.
func lose(t *testing.T, s *Server, nodeID string) {
	t.Helper()
	n, _ := s.fsm.Node(nodeID)
	at := s.view.position(nodeID)
	write(t, s.fsm, &pb.Command{Op: &pb.Command_RaiseNodeEpoch{RaiseNodeEpoch: &pb.RaiseNodeEpoch{
		NodeId: nodeID, FromEpoch: n.GetEpoch(), BootId: at.BootID, Seq: at.Seq,
	}}})
	s.view.setEpochs(s.fsm.Nodes(), silent)
}

// once returns a record of what must not run twice.
func once(node string, generation uint64, placed int64) *pb.Instance {
	i := withPolicy(instance(onceID, node, generation, 3, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	i.Spec.Name, i.Spec.ModuleHash, i.Spec.MemoryLimitBytes = "once", "sha256:0000000000000000000000000000000000000000000000000000000000000000", 64<<20
	i.Spec.OnPartition = pb.OnPartition_ON_PARTITION_STOP
	i.PlacedAt = &timestamppb.Timestamp{Seconds: placed}
	return i
}

const onceID = "0190a000-0000-7000-8000-000000000001"

func cleared(s *Server, l *lead, node string, generation uint64) bool {
	ids, _ := s.judgeWaiting(l, &pb.RenewContactRequest{NodeId: node, Waiting: map[string]uint64{onceID: generation}})
	return slices.Contains(ids, onceID)
}

// TestCopyWithBetterRightWaitsForTheEndOfTheOther: an earlier leader's order reached n2, which was away when this one
// started the same generation on n3. The older one stays, once the other has ended.
func TestCopyWithBetterRightWaitsForTheEndOfTheOther(t *testing.T) {
	s, l, _ := leads(t)
	s.view.put(once("n3", 2, 20))
	s.view.put(once("n2", 2, 10))
	if i := s.view.get(onceID); i.GetNodeId() != "n2" {
		t.Fatalf("the older one has the better right, and it is %v", i)
	}
	if cleared(s, l, "n2", 2) {
		t.Fatal("it may run, and n3 has not been told to end it")
	}
	s.view.settled(once("n3", 2, 20))
	if !cleared(s, l, "n2", 2) {
		t.Fatal("n3 has ended it, and it may not run")
	}
}

func TestCopyIsNotWaitedForOnANodeThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, _ := leads(t)
		s.view.put(once("n3", 2, 20), once("n2", 2, 10))
		l.grant(grant{nodeID: "n3"}, func() bool { return true })
		lose(t, s, "n3")
		time.Sleep(contactFor + contactMargin - time.Millisecond)
		if cleared(s, l, "n2", 2) {
			t.Fatal("it may run, and n3 may be running it")
		}
		time.Sleep(time.Millisecond)
		if !cleared(s, l, "n2", 2) {
			t.Fatal("n3 is lost and all has ended there, and it may not run")
		}
	})
}

func TestCopyWaitsWhileAnotherIsBeingStarted(t *testing.T) {
	s, l, _ := leads(t)
	reserved := reservation(onceID, once("", 2, 0).GetSpec(), candidate{NodeID: "n3", Name: "n3"}, 2)
	s.view.reserve(reserved)
	call := &startCall{done: make(chan struct{}), on: "n3"}
	l.starts[onceID] = call
	if !cleared(s, l, "n3", 2) {
		t.Fatal("where it is started just now it may not run")
	}
	s.view.put(once("n2", 2, 10))
	if cleared(s, l, "n2", 2) {
		t.Fatal("it may run, and n3 is starting it")
	}
	s.settle(l, call, reserved, startOutcome{err: rpc.Errorf(rpc.Timeout, "no answer")})
	if cleared(s, l, "n2", 2) {
		t.Fatal("it may run, and nobody knows whether n3 has started it")
	}
	if doubles, _ := s.view.doubled(); len(doubles) != 1 || doubles[0].GetNodeId() != "n3" {
		t.Fatalf("n3 is to be told to end it; told is %v", doubles)
	}
}

// TestRetriedStartWaitsForTheNodeThatMayRunIt: its order was not answered, and its node can't be reached, and is lost.
func TestRetriedStartWaitsForTheNodeThatMayRunIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, c := leads(t)
		spec := once("", 1, 0).GetSpec()
		req := &pb.StartInstanceRequest{InstanceIds: []string{onceID}, Spec: spec}
		s.view.reserve(reservation(onceID, spec, candidate{NodeID: "n1", Name: "n1"}, 1))
		l.grant(grant{nodeID: "n1"}, func() bool { return true })
		c.members[1].State = "dead"

		calls, mine, err := s.reserveStarts(l, req)
		if err != nil || len(mine) > 0 || calls[onceID].failure.GetErrorCode() != string(rpc.CommunicationFailure) {
			t.Fatalf("a retry orders %v and is answered with %v, %v", mine, calls[onceID], err)
		}
		if s.view.get(onceID).GetNodeId() != "n1" {
			t.Fatal("the reservation is gone while its node may run it")
		}

		delete(l.answered, "n1")
		lose(t, s, "n1")
		if i := s.view.get(onceID); i != nil {
			t.Fatalf("of a start that nobody was answered for nothing remains, and there is %v", i)
		}
		if _, mine, err := s.reserveStarts(l, req); rpc.CodeOf(err) != rpc.CommunicationFailure {
			t.Fatalf("just after the loss a retry orders %v, %v", mine, err)
		}
		began := time.Now()
		if err := s.waitEnded(t.Context(), l, spec); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited < contactFor+contactMargin {
			t.Fatalf("it waited %s", waited)
		}
		if _, mine, err := s.reserveStarts(l, req); err != nil || len(mine) != 1 || mine[0].GetNodeId() == "n1" {
			t.Fatalf("once it has ended for sure a retry orders %v, %v", mine, err)
		}
	})
}

// TestOthersNeedNotWaitForTheLost: what may run twice is started elsewhere at once.
func TestOthersNeedNotWaitForTheLost(t *testing.T) {
	s, l, _ := leads(t)
	l.grant(grant{nodeID: "n1"}, func() bool { return true })
	lose(t, s, "n1")
	spec := once("", 1, 0).GetSpec()
	spec.OnPartition = pb.OnPartition_ON_PARTITION_KEEP
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.waitEnded(ctx, l, spec); err != nil {
		t.Fatal(err)
	}
	if _, mine, err := s.reserveStarts(l, &pb.StartInstanceRequest{InstanceIds: []string{onceID}, Spec: spec}); err != nil || len(mine) != 1 {
		t.Fatalf("a start orders %v, %v", mine, err)
	}
}

// TestOrphanWaitsWhoeverToldOfIt: a voter's word on an orphan says nothing of when its node was granted contact last.
func TestOrphanWaitsWhoeverToldOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, _ := leads(t)
		time.Sleep(time.Minute)
		l.grant(grant{nodeID: "n1"}, func() bool { return true })
		lose(t, s, "n1")
		s.view.adopt([]*pb.Instance{orphaned(once("n1", 1, 10), time.Now())})
		o := s.view.get(onceID)
		if reserved, _ := s.reserveRelocation(l, o); reserved != nil {
			t.Fatalf("it is started on %s, and may be running on n1", reserved.GetNodeName())
		}
		time.Sleep(contactFor + contactMargin)
		if reserved, _ := s.reserveRelocation(l, o); reserved == nil {
			t.Fatal("it has ended for sure, and is not started elsewhere")
		}
	})
}
