package controlplane

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// What must never run twice (on_partition stop) runs on a node only within the time that a leader has granted it,
// counted from when the node asked. docs/decisions/006-on-partition.md says why that suffices.
const (
	// contactFor is what one grant is good for: longer than a failover takes, and not much longer than a lost
	// node is noticed in. It must never become shorter than an older version's.
	contactFor = 4 * time.Second
	// contactMargin is how long an agent may take beyond it to end what runs, and clocks may differ in rate.
	contactMargin = time.Second
)

// RenewContact grants a node contact, if this node verifiably leads and knows what runs there.
func (s *Server) RenewContact(ctx context.Context, req *pb.RenewContactRequest) (*pb.RenewContactResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	node, ok := s.fsm.Node(req.GetNodeId())
	if !ok {
		return nil, rpc.Errorf(rpc.NodeNotFound, "node %s is not registered", req.GetNodeId())
	}
	if node.GetEpoch() > req.GetNodeEpoch() { // it was declared lost, and learns it from the fence
		return &pb.RenewContactResponse{Fence: s.fenceFor(l, req.GetNodeId())}, nil
	}
	if !l.grant(grant{req.GetNodeId(), req.GetNodeEpoch()}, func() bool {
		now, _ := s.fsm.Node(req.GetNodeId())
		return now.GetEpoch() == req.GetNodeEpoch()
	}) {
		return nil, rpc.Errorf(rpc.NoLeader, "node %s has not told this leader yet what it runs; try again", node.GetName())
	}
	// Before the answer, and after it was written down: a later leader is elected after this, and counts from there.
	if err := s.leadsStill(ctx, l); err != nil {
		return nil, err
	}
	resp := &pb.RenewContactResponse{Fence: s.fenceFor(l, req.GetNodeId()), ValidFor: durationpb.New(contactFor)}
	if !l.recovering() && s.allHeard(l) {
		resp.Cleared, resp.Superseded = s.judgeWaiting(l, req)
	}
	return resp, nil
}

// judgeWaiting says which of those that wait on a node may run, and which run elsewhere or were stopped. Others are
// being moved, or stopped: they wait on.
func (s *Server) judgeWaiting(l *lead, req *pb.RenewContactRequest) (cleared, superseded []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, generation := range req.GetWaiting() {
		switch known := s.view.get(id); {
		case stoppedElsewhere(known, req.GetNodeId()):
			superseded = append(superseded, id)
		case known == nil || l.stopping[id] > 0 || known.GetGeneration() < generation:
		case known.GetGeneration() > generation:
			if !provisional(known) && known.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_STARTING { // else it may come to nothing
				superseded = append(superseded, id)
			}
		case known.GetNodeId() == req.GetNodeId() && s.endedElsewhereLocked(l, id, req.GetNodeId()):
			cleared = append(cleared, id)
		}
	}
	return cleared, superseded
}

// endedElsewhereLocked says whether no other node runs an instance with less right, or may: the leader has it ended there.
func (s *Server) endedElsewhereLocked(l *lead, id, nodeID string) bool {
	if call := l.starts[id]; call != nil && call.on != nodeID {
		return false
	}
	return !slices.ContainsFunc(s.view.doublesOf(id), func(double *pb.Instance) bool {
		lost := s.over(grant{double.GetNodeId(), double.GetNodeEpoch()}) && !time.Now().Before(l.endsByLocked(s.over))
		return double.GetNodeId() != nodeID && !lost && !s.hasLeft(double.GetNodeId())
	})
}

// hasLeft says whether a node has left in order, which it does when all has ended there.
func (s *Server) hasLeft(nodeID string) bool {
	m, known := s.member(nodeID)
	return known && m.State == "left"
}

// grant is whom contact was granted: a node in one epoch of it.
type grant struct {
	nodeID string
	epoch  uint64
}

// grant notes that a node is granted contact from now on, if it has answered this leader and may still be
// granted any. What it is granted counts before it hears of it.
func (l *lead) grant(to grant, may func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, answered := l.answered[to.nodeID]; !answered {
		return false
	}
	l.granted[to] = time.Now()
	return may()
}

// endsByLocked returns when all has ended for sure that earlier leaders granted contact to until this one was elected, or
// this one to nodes that were declared lost since.
func (l *lead) endsByLocked(over func(grant) bool) time.Time {
	last := l.began
	if at := l.lastGrantLocked(over); at.After(last) {
		last = at
	}
	return last.Add(contactFor + contactMargin)
}

// lastGrantLocked returns when this leader last granted contact to a node in an epoch that is over.
func (l *lead) lastGrantLocked(over func(grant) bool) (last time.Time) {
	for to, at := range l.granted {
		if at.After(last) && over(to) {
			last = at
		}
	}
	return last
}

// over says whether a grant can't be renewed: the node was declared lost since.
func (s *Server) over(to grant) bool {
	n, known := s.fsm.Node(to.nodeID)
	return !known || n.GetEpoch() > to.epoch
}

// allHeard says whether this leader knows of all that runs thanks to contact: each node has told it, or what an
// earlier leader granted has run out.
func (s *Server) allHeard(l *lead) bool {
	return time.Since(l.began) > contactFor+contactMargin || len(s.silentNodes(l)) == 0
}

// waitEnded holds up the first start of what must not run twice: an earlier leader may have started it on a node
// that this one has not heard, or this one on a node that was declared lost before it answered.
func (s *Server) waitEnded(ctx context.Context, l *lead, spec *pb.InstanceSpec) error {
	if !fact.StopsOnPartition(spec) {
		return nil
	}
	for {
		wait := s.firstStartIn(l)
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return rpc.Errorf(rpc.Timeout, "a node that was lost, or that this new leader has not heard, may run it already: %w", ctx.Err())
		}
	}
}

// firstStartIn returns how long the first start of what must not run twice has to wait.
func (s *Server) firstStartIn(l *lead) time.Duration {
	heard := s.allHeard(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if heard {
		return s.lostRunForLocked(l)
	}
	return time.Until(l.endsByLocked(s.over))
}

// lostRunForLocked returns for how long something may still run on nodes that this leader has declared lost.
func (s *Server) lostRunForLocked(l *lead) time.Duration {
	return time.Until(l.lastGrantLocked(s.over).Add(contactFor + contactMargin))
}
