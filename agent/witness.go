package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// witnessed waits until most of the voters know all that has happened here so far. Whoever leads later has
// heard from one of them before it takes this node's instances out of its hands: so what was acknowledged
// survives this host, and a cut that has the leader and this host on the losing side. The leader that gave
// the order knows from the answer.
func (a *Agent) witnessed(ctx context.Context, order *pb.Fence) error {
	seq, began := a.facts.position(), time.Now()
	for {
		changed := a.voters.Changed()
		know, heard := a.reports.whoKnows(seq, order)
		if 2*know > len(order.GetVoterIds()) || len(order.GetVoterIds()) == 0 {
			a.metrics.witness.Observe(time.Since(began).Seconds())
			return nil
		}
		if err := waitAny(ctx, changed, heard...); err != nil {
			a.metrics.unwitnessed.Inc()
			return rpc.Errorf(rpc.Timeout, "node %s has done it, but only %d of %d voters know of it yet: %w", a.cfg.NodeName, know, len(order.GetVoterIds()), err)
		}
	}
}

// vouchFor returns the records of instances that a leader is about to build on: to acknowledge them, or to end what runs of
// them elsewhere. It knows them from reports, which the disk is not waited for: what an order has just started is given up again
// where it can't be kept. What is returned live is not given up any more.
func (a *Agent) vouchFor(ctx context.Context, order *pb.Fence, ids []string) ([]*pb.Instance, error) {
	if err := a.durable(ctx); err != nil {
		return nil, err
	}
	if err := a.witnessed(ctx, order); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known := make([]*pb.Instance, 0, len(ids))
	for _, id := range ids {
		rec := a.facts.get(id)
		if rec == nil {
			continue
		}
		if i := a.live[id]; i != nil {
			if i.givenUp {
				continue // as good as gone
			}
			i.vouched = true
		}
		known = append(known, rec)
	}
	return known, nil
}

// whoKnows counts the voters that know all up to seq: who gave the order, this node, and those whose
// acknowledgement has come. The channels are closed when there may be more.
func (r *reports) whoKnows(seq uint64, order *pb.Fence) (know int, heard []<-chan struct{}) {
	knowing := map[string]bool{order.GetLeaderId(): true, r.agent.cfg.NodeID: true}
	for _, s := range r.all() {
		seen, more := s.progress()
		heard = append(heard, more)
		if seen >= seq {
			knowing[s.voter.NodeID] = true
		}
	}
	for _, id := range order.GetVoterIds() {
		if knowing[id] {
			know++
		}
	}
	return know, heard
}

// Witnessed says whether a voter on another node has the newest record of an instance of this agent.
func (a *Agent) Witnessed(id string) bool {
	seq := a.facts.seqOf(id)
	for _, s := range a.reports.all() {
		if seen, _ := s.progress(); seen >= seq && s.voter.NodeID != a.cfg.NodeID {
			return true
		}
	}
	return false
}

// all returns the streams.
func (r *reports) all() []*reportStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.streams))
}

// progress returns what the voter has acknowledged, and a channel that is closed when that changes.
func (s *reportStream) progress() (seen uint64, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen, s.more
}

var errEnded = errors.New("it ended")

// waitAny waits for the first of several channels. There are as many as voters: few.
func waitAny(ctx context.Context, one <-chan struct{}, more ...<-chan struct{}) error {
	either, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnded)
	for _, c := range more {
		go func() {
			select {
			case <-c:
				cancel(errEnded)
			case <-either.Done():
			}
		}()
	}
	select {
	case <-one:
		return nil
	case <-either.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
}
