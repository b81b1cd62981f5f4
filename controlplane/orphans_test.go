package controlplane

import (
	"testing"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func withPolicy(i *pb.Instance, p pb.PolicyType) *pb.Instance {
	i.Spec.RestartPolicy = &pb.RestartPolicy{PolicyType: p}
	return i
}

func TestLostNodesInstancesBecomeNobodysAndStaySoUntilTheyRunElsewhere(t *testing.T) {
	const (
		restarting = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING
		gone       = pb.InstanceStatus_INSTANCE_STATUS_LOST
	)
	v := newView("me")
	kept := withPolicy(instance("kept", "n1", 1, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	never := withPolicy(instance("never", "n1", 1, 2, running), pb.PolicyType_POLICY_TYPE_NEVER)
	v.replace("n1", position{"boot", 5}, []*pb.Instance{kept, never, instance("ended", "n1", 1, 3, stopped)})
	v.put(withPolicy(instance("other", "n2", 1, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS))
	_, changed := v.homeless()

	epochs := []*pb.Node{{NodeId: "n1", Epoch: 1, LostBootId: "boot", LostSeq: 5}, {NodeId: "n2"}}
	v.setEpochs(epochs, silent)
	v.setEpochs(epochs, silent) // told twice
	want := func(id, node string, generation uint64, status pb.InstanceStatus) {
		t.Helper()
		i := v.get(id)
		if i.GetNodeId() != node || i.GetGeneration() != generation || i.GetStatus() != status {
			t.Errorf("%s is %v", id, i)
		}
	}
	wantAll := func() {
		t.Helper()
		want("kept", "", 2, restarting)
		want("never", "", 2, gone)
		want("other", "n2", 1, running)
	}
	wantAll()
	want("ended", "n1", 1, stopped)
	select {
	case <-changed:
	default:
		t.Error("nobody was told that there are orphans")
	}
	if all, _ := v.homeless(); len(all) != 1 || all[0].GetInstanceId() != "kept" {
		t.Errorf("homeless: %v", all)
	}
	if v.usage("n1").Instances != 0 {
		t.Error("the lost node still carries something")
	}

	v.put(kept) // a late answer to an order
	v.advance("n1", 5, position{"boot", 6}, []*pb.Instance{never, kept}, nil)
	wantAll()
	v.replace("n1", position{"another boot", 1}, nil) // it is back, and empty
	wantAll()

	here := withPolicy(instance("kept", "n2", 2, 1, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.put(here)
	v.put(kept)
	want("kept", "n2", 2, running)
	if all, _ := v.homeless(); len(all) != 0 {
		t.Errorf("homeless: %v", all)
	}
	again := withPolicy(instance("again", "n1", 1, 1, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	again.NodeEpoch = 1
	v.put(again)
	want("again", "n1", 1, running)
}

func silent(string) bool { return false }

// An order to the next node may have arrived before that one is lost as well.
func TestReservationOnALostNodeGoesOnInTheNextGeneration(t *testing.T) {
	v := newView("me")
	kept := withPolicy(instance("kept", "n1", 1, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.put(kept)
	v.setEpochs([]*pb.Node{{NodeId: "n1", Epoch: 1}}, silent)
	orphan := v.get("kept")
	if !v.exchange(orphan, reservation("kept", kept.GetSpec(), candidate{NodeID: "n2", Name: "n2"}, 2)) {
		t.Fatal("the orphan is not there")
	}
	if v.exchange(orphan, orphan) {
		t.Fatal("exchanged what is not there any more")
	}
	first := reservation("first", kept.GetSpec(), candidate{NodeID: "n2", Name: "n2"}, 1)
	v.reserve(first)
	if all, _ := v.homeless(); len(all) != 1 {
		t.Fatalf("homeless: %v", all)
	}
	v.setEpochs([]*pb.Node{{NodeId: "n2", Epoch: 1}}, silent)
	if i := v.get("kept"); i.GetGeneration() != 3 || i.GetNodeId() != "" {
		t.Errorf("kept is %v", i)
	}
	if i := v.get("first"); i != nil {
		t.Errorf("a first start that nobody was told of is %v", i)
	}
}

func TestWhatIsBeingMovedToANodeThatIsLostGoesOnWhereItIs(t *testing.T) {
	v := newView("me")
	runs := withPolicy(instance("i", "n1", 1, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.put(runs)
	v.reserve(reservation("i", runs.GetSpec(), candidate{NodeID: "n2", Name: "n2"}, 2))
	v.setEpochs([]*pb.Node{{NodeId: "n2", Epoch: 1}}, silent)
	late := withPolicy(instance("i", "n2", 2, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.put(late) // the answer, of an epoch that is over
	if waiting, _ := v.homeless(); v.get("i") != runs || len(waiting) != 0 {
		t.Errorf("it is %v, and to be started elsewhere are %v", v.get("i"), waiting)
	}
	if !v.taken(late) {
		t.Error("the answer of a node that was lost meanwhile counts")
	}

	v = newView("me") // both nodes are lost, the one that it runs on last
	v.put(runs)
	v.reserve(reservation("i", runs.GetSpec(), candidate{NodeID: "n2", Name: "n2"}, 2))
	v.setEpochs([]*pb.Node{{NodeId: "n1", Epoch: 1}}, silent)
	v.setEpochs([]*pb.Node{{NodeId: "n2", Epoch: 1}}, silent)
	if i := v.get("i"); !orphan(i) || i.GetGeneration() != 3 {
		t.Errorf("it is %v", i)
	}
}

func TestCopyBehindAnotherVotersOrphanIsEndedOnceThatRuns(t *testing.T) {
	v := newView("me")
	runs := withPolicy(instance("i", "n1", 1, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.put(runs)
	waits := orphaned(withPolicy(instance("i", "n2", 2, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS), time.Now())
	v.adopt([]*pb.Instance{waits})
	if i := v.get("i"); i != waits {
		t.Fatalf("it is %v", i)
	}
	v.put(withPolicy(instance("i", "n3", 3, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS))
	if doubles, _ := v.doubled(); len(doubles) != 1 || doubles[0] != runs {
		t.Errorf("to be ended are %v", doubles)
	}
}

// A voter that was cut off may hold as running what was stopped since.
func TestCopyThatIsOlderThanTheLossMakesNoOrphans(t *testing.T) {
	kept := func() *pb.Instance {
		return withPolicy(instance("kept", "n1", 1, 2, running), pb.PolicyType_POLICY_TYPE_ALWAYS)
	}
	for name, lost := range map[string]position{"an earlier state": {"boot", 6}, "another life": {"other", 1}} {
		v := newView("me")
		v.replace("n1", position{"boot", 5}, []*pb.Instance{kept()})
		v.setEpochs([]*pb.Node{{NodeId: "n1", Epoch: 1, LostBootId: lost.BootID, LostSeq: lost.Seq}}, silent)
		if i := v.get("kept"); i != nil {
			t.Errorf("%s: %v", name, i)
		}
		if at := v.position("n1"); at != (position{}) {
			t.Errorf("%s: the story goes on from %v, without what was dropped", name, at)
		}
		if all := v.trusted("n1", position{"boot", 5}, []*pb.Instance{kept()}); len(all) != 0 {
			t.Errorf("%s: from another voter %v", name, all)
		}
		if all := v.trusted("n1", lost, []*pb.Instance{kept()}); len(all) != 1 {
			t.Errorf("%s: a copy as new as the leader's is worth %v", name, all)
		}
	}
}
