package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// TestOrdersAreAnsweredOnceMostVotersKnow gives an order as the one voter of five that a cut has left this
// node with: only when two more can be reached is it answered.
func TestOrdersAreAnsweredOnceMostVotersKnow(t *testing.T) {
	one, two, three := newReceiver(t), newReceiver(t), newReceiver(t)
	voters := newElectorate(Voter{"v1", one.addr}, Voter{"v2", "127.0.0.1:1"}, Voter{"stranger", three.addr})
	a := newReporter(t, voters)
	runAgent(t, a)
	three.wantEqual(t, a.facts)
	order := &pb.Fence{Term: 1, LeaderId: "leader", VoterIds: []string{"leader", "v1", "v2", "v3", "v4"}}

	a.facts.put(&pb.Instance{InstanceId: uuid.NewString(), Revision: 1, Generation: 1}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := a.witnessed(ctx, order)
	wantCode(t, err, rpc.Timeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two of five know it, and the answer is %v", err)
	}

	answered := make(chan error, 1)
	go func() { answered <- a.witnessed(t.Context(), order) }()
	select {
	case err := <-answered:
		t.Fatalf("answered although two of five know it: %v", err)
	default:
	}
	voters.set(Voter{"v1", one.addr}, Voter{"v2", two.addr})
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	one.wantEqual(t, a.facts)
	two.wantEqual(t, a.facts)
}

// TestVoterKnowsItsOwnOrders: of three voters this node and the leader are two.
func TestVoterKnowsItsOwnOrders(t *testing.T) {
	a := newReporter(t, newElectorate())
	a.facts.put(&pb.Instance{InstanceId: uuid.NewString(), Revision: 1, Generation: 1}, nil)
	if err := a.witnessed(t.Context(), &pb.Fence{Term: 1, LeaderId: "leader", VoterIds: []string{"leader", a.cfg.NodeID, "v2"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := a.witnessed(ctx, &pb.Fence{Term: 1, LeaderId: a.cfg.NodeID, VoterIds: []string{"v1", a.cfg.NodeID, "v2"}})
	wantCode(t, err, rpc.Timeout)
}
