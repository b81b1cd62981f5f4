package agent

import (
	"testing"

	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// An order that can't be kept is given up. But a leader that has heard of it by a report may build on it: it is one or the other.
func TestWhatIsVouchedForIsNotGivenUp(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	vouched, givenUp := newID(), newID()
	req := &pb.NodeAgentServiceStartInstanceRequest{
		Fence: fence, Spec: spec(h.push(actor(t)), "sleep", "1000000"),
		Orders: []*pb.StartOrder{{InstanceId: vouched, Generation: 1}, {InstanceId: givenUp, Generation: 1}},
	}
	admitted, err := h.admitAll(req, &order{hash: modulestore.Sum(actor(t)), cause: t.Context()})
	if err != nil {
		t.Fatal(err)
	}
	for _, ad := range admitted {
		<-ad.instance.left
	}
	if sure, err := h.vouchFor(t.Context(), fence, []string{vouched}); err != nil || len(sure) != 1 || sure[0].GetStatus() != isRunning {
		t.Fatalf("it runs, and the answer is %v, %v", sure, err)
	}
	h.giveUp(admitted)
	// It may be still ending, but nobody is to build on it any more.
	if sure, err := h.vouchFor(t.Context(), fence, []string{givenUp}); err != nil || len(sure) != 0 {
		t.Fatalf("it is given up, and the answer is %v, %v", sure, err)
	}
	<-admitted[1].instance.done
	if rec := h.facts.get(givenUp); rec != nil {
		t.Fatalf("it was given up, and its record is %v", rec)
	}
	if rec := h.facts.get(vouched); rec.GetStatus() != isRunning {
		t.Fatalf("a leader builds on it, and its record is %v", rec)
	}
}
