package controlplane

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// What the simulation found (internal/sim): news that a leader, or a voter, is too late with.

// TestCopyOfANodeHasWhatRunsElsewhereWithBetterRight: whoever takes it over hears from the node only what comes after.
func TestCopyOfANodeHasWhatRunsElsewhereWithBetterRight(t *testing.T) {
	ours, theirs := newView("me"), newView("you")
	old := instance("i", "cut-off", 1, 2, running)
	ours.replace("cut-off", position{"boot", 7}, []*pb.Instance{old})
	ours.put(instance("i", "me", 2, 1, stopped))
	at, all := ours.copyOf("cut-off")
	if !slices.Contains(all, old) {
		t.Fatalf("the copy of the node at %v has only %v", at, all)
	}
	theirs.put(instance("i", "me", 2, 1, stopped))
	theirs.replace("cut-off", at, all)
	if doubles, _ := theirs.doubled(); len(doubles) != 1 {
		t.Errorf("who took the copy over would stop %v there", doubles)
	}
}

// A start that was not answered had been carried out on a node that is lost now; the retried one runs elsewhere.
func TestLostNodesCopyOfWhatRunsElsewhereMakesNoOrphan(t *testing.T) {
	v := newView("me")
	runs := instance("i", "n1", 1, 2, running)
	v.put(runs)
	v.setEpochs([]*pb.Node{{NodeId: "n2", Epoch: 1}}, func(string) bool { return false })
	v.put(instance("i", "n2", 1, 2, running))
	if waiting, _ := v.homeless(); v.get("i") != runs || len(waiting) != 0 {
		t.Errorf("it is %v, and to be started elsewhere are %v", v.get("i"), waiting)
	}
}

func TestCopyOfANodeHasWhatIsBeingMoved(t *testing.T) {
	v := newView("me")
	old := instance("i", "n", 1, 2, running)
	v.replace("n", position{"boot", 7}, []*pb.Instance{old})
	v.reserve(reservation("i", old.GetSpec(), candidate{NodeID: "other", Name: "other"}, 2))
	if _, all := v.copyOf("n"); !slices.Equal(all, []*pb.Instance{old}) {
		t.Errorf("the copy has %v", all)
	}
}

func TestDeposedLeaderAcknowledgesNeitherStartNorStop(t *testing.T) {
	s, _, a := leadLateAgent(t)
	spec := &pb.InstanceSpec{Name: "web", ModuleHash: a.put(actor(t)), Args: []string{"sleep", "100000"}, MemoryLimitBytes: 4 << 20}
	req := &pb.StartInstanceRequest{Spec: spec, InstanceIds: []string{uuid.Must(uuid.NewV7()).String()}}
	if _, err := s.StartInstance(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	s.cluster.(simulatedCluster).deposed.Store(true)
	if resp, err := s.StartInstance(t.Context(), req); rpc.CodeOf(err) != rpc.NoLeader {
		t.Errorf("a start was acknowledged with %v, %v", resp, err)
	}
	if resp, err := s.StopInstance(t.Context(), &pb.StopInstanceRequest{Refs: req.GetInstanceIds()}); rpc.CodeOf(err) != rpc.NoLeader {
		t.Errorf("a stop was acknowledged with %v, %v", resp, err)
	}
}

func TestNothingIsMovedOffANodeThatThisLeaderHasNotHeard(t *testing.T) {
	s := New(Config{NodeID: "me", NodeName: "me"}, simulatedCluster{members: []cluster.Member{{NodeID: "n", Name: "n", State: "alive"}}}, raftfsm.New(), newPeers(t), discardEvents{})
	i := instance("i", "n", 1, 2, running)
	s.view.put(i)
	l := &lead{ctx: t.Context(), answered: map[string]struct{}{}, starts: map[string]*startCall{}}
	moved, err := s.move(t.Context(), l, i)
	if moved != nil || rpc.CodeOf(err) != rpc.CommunicationFailure {
		t.Errorf("the answer is %v, %v", moved, err)
	}
}

func TestStopIsOfALaterGenerationThanAnUnansweredMove(t *testing.T) {
	s, _, a := leadLateAgent(t)
	id := uuid.Must(uuid.NewV7()).String()
	spec := &pb.InstanceSpec{Name: "web", ModuleHash: a.put(actor(t)), Args: []string{"sleep", "100000"}, MemoryLimitBytes: 4 << 20}
	if _, err := s.StartInstance(t.Context(), &pb.StartInstanceRequest{Spec: spec, InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	l, err := s.leading()
	if err != nil {
		t.Fatal(err)
	}
	l.noteOrdered(&pb.Instance{InstanceId: id, Generation: 2})
	resp, err := s.StopInstance(t.Context(), &pb.StopInstanceRequest{Refs: []string{id}})
	if err != nil || len(resp.GetInstances()) != 1 {
		t.Fatalf("the stop is answered with %v, %v", resp, err)
	}
	if i := resp.GetInstances()[0]; i.GetStatus() != stopped || i.GetGeneration() != 3 {
		t.Errorf("it is %v in generation %d, and that of the move is 2", i.GetStatus(), i.GetGeneration())
	}
}

// A move was under way when the node that was being drained came back, and came to nothing.
func TestReturnedNodeKeepsWhatIsOnlyBeingStartedElsewhere(t *testing.T) {
	s, l, _ := leads(t)
	i := instance("i", "n1", 3, 2, running)
	s.view.put(i)
	resuming := map[string]uint64{"i": 3}
	gone := func() []string {
		t.Helper()
		ids, err := s.superseded(t.Context(), l, "n1", resuming)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	s.view.reserve(reservation("i", i.GetSpec(), candidate{NodeID: "n2", Name: "n2"}, 4))
	if ids := gone(); len(ids) > 0 {
		t.Errorf("it is only reserved on n2, and n1 is told to drop %v", ids)
	}
	s.view.put(instance("i", "n2", 4, 1, pb.InstanceStatus_INSTANCE_STATUS_STARTING))
	if ids := gone(); len(ids) > 0 {
		t.Errorf("it is only starting on n2, and n1 is told to drop %v", ids)
	}
	s.view.put(instance("i", "n2", 4, 2, running))
	if ids := gone(); len(ids) != 1 {
		t.Errorf("it runs on n2, and n1 is told to drop %v", ids)
	}
}

// A start is acknowledged without another question only where the answers to the orders are as good as one.
func TestAnswersOfAStartSayInWhichTermMostVotersAre(t *testing.T) {
	on := func(node string, term uint64) *startCall {
		return &startCall{instance: instance("i", node, 1, 2, running), term: term}
	}
	refused := &startCall{failure: &pb.StartFailure{}}
	three, five := []string{"me", "n1", "n2"}, []string{"me", "n1", "n2", "n3", "n4"}
	for what, c := range map[string]struct {
		voters []string
		calls  []*startCall
		want   bool
	}{
		"a voter that is in the term":                 {three, []*startCall{on("n1", 7)}, true},
		"each on a voter that is":                     {three, []*startCall{on("n1", 7), on("n2", 7)}, true},
		"one of two voters":                           {three[:2], []*startCall{on("n1", 7)}, true},
		"a voter that has voted in a later one":       {three, []*startCall{on("n1", 8)}, false},
		"a voter of a version that does not say":      {three, []*startCall{on("n1", 0)}, false},
		"one that is and one that is not":             {three, []*startCall{on("n1", 7), on("n2", 8)}, false},
		"a node that has no vote":                     {three, []*startCall{on("n3", 7)}, false},
		"this node alone":                             {three, []*startCall{on("me", 7)}, false},
		"two of five":                                 {five, []*startCall{on("n1", 7)}, false},
		"a voter that is, for one that has no vote":   {three[1:], []*startCall{on("n1", 7)}, false},
		"a voter that is, and one that has refused":   {three, []*startCall{on("n1", 7), refused}, true},
		"one that was known before, with its own way": {three, []*startCall{finished(instance("i", "n1", 1, 2, running))}, false},
	} {
		calls := map[string]*startCall{}
		for n, call := range c.calls {
			calls[fmt.Sprint(n)] = call
		}
		if got := mostAnsweredIn(7, "me", c.voters, calls); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}
