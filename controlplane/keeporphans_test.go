package controlplane

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func orphanCalled(id string, policy pb.PolicyType) *pb.Instance {
	return orphaned(withPolicy(instance(id, "n1", 1, 2, running), policy), time.Now())
}

func TestVoterDropsOrphansThatTheLeaderDoesNotHave(t *testing.T) {
	v := newView("me")
	here := orphanCalled("here", pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.adopt([]*pb.Instance{here, orphanCalled("stopped-long-ago", pb.PolicyType_POLICY_TYPE_ALWAYS)})
	theirs := []*pb.Instance{here}
	doubted := v.doubtOrphans(theirs, nil)
	if v.get("stopped-long-ago") == nil {
		t.Fatal("it went at the first doubt: the leader may not have heard of the loss yet")
	}
	if doubted = v.doubtOrphans(theirs, doubted); len(doubted) > 0 || v.get("stopped-long-ago") != nil || v.get("here") == nil {
		t.Fatalf("%v is doubted, and this is left: %v", doubted, v.unowned())
	}
	if waiting, _ := v.homeless(); len(waiting) != 1 {
		t.Fatalf("%v waits for a node", waiting)
	}
}

// TestOrphanThatIsBeingStartedIsToldOf: should the leader go now, the others have to know of it.
func TestOrphanThatIsBeingStartedIsToldOf(t *testing.T) {
	v := newView("me")
	o := orphanCalled("moving", pb.PolicyType_POLICY_TYPE_ALWAYS)
	v.adopt([]*pb.Instance{o})
	if !v.exchange(o, reservation("moving", o.GetSpec(), candidate{NodeID: "n2", Name: "n2"}, o.GetGeneration())) {
		t.Fatal("it was not there")
	}
	told := v.unowned()
	if len(told) != 1 || !orphan(told[0]) || told[0].GetGeneration() != 2 {
		t.Fatalf("told of %v", told)
	}
	v.put(instance("moving", "n2", 2, 1, running))
	if told := v.unowned(); len(told) > 0 {
		t.Fatalf("it runs, and told of is %v", told)
	}
}

func TestLostInstancesAreForgottenAsEndedOnesAre(t *testing.T) {
	v := newView("me")
	now := time.Now()
	for n := range maxLost + 10 {
		i := orphanCalled(fmt.Sprint(n), pb.PolicyType_POLICY_TYPE_NEVER)
		i.FinishedAt = timestamppb.New(now.Add(-time.Duration(n) * time.Second))
		v.adopt([]*pb.Instance{i})
	}
	v.adopt([]*pb.Instance{orphanCalled("waits", pb.PolicyType_POLICY_TYPE_ALWAYS)})
	v.forgetLost(now)
	if n := len(v.unowned()); n != maxLost+1 || v.get(fmt.Sprint(maxLost)) != nil || v.get("0") == nil {
		t.Fatalf("%d are left, with the oldest %t", n, v.get(fmt.Sprint(maxLost)) != nil)
	}
	v.forgetLost(now.Add(keepLost))
	if left := v.unowned(); len(left) != 2 || v.get("0") == nil || v.get("waits") == nil {
		t.Fatalf("after an hour there are %d", len(left))
	}
}
