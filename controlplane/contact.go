package controlplane

import (
	"context"
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
	if !l.grant(req.GetNodeId(), func() bool {
		now, _ := s.fsm.Node(req.GetNodeId())
		return now.GetEpoch() == req.GetNodeEpoch()
	}) {
		return nil, rpc.Errorf(rpc.NoLeader, "node %s has not told this leader yet what it runs; try again", node.GetName())
	}
	// Before the answer, and after it was written down: a later leader is elected after this, and counts from there.
	if err := s.cluster.VerifyLeader(ctx); err != nil {
		return nil, rpc.Errorf(rpc.NoLeader, "node %s does not lead for sure: %w", s.cfg.NodeName, err)
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
			if !provisional(known) {
				superseded = append(superseded, id)
			}
		case known.GetNodeId() == req.GetNodeId():
			cleared = append(cleared, id)
		}
	}
	return cleared, superseded
}

// grant notes that a node is granted contact from now on, if it has answered this leader and may still be
// granted any. What it is granted counts before it hears of it.
func (l *lead) grant(nodeID string, may func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, answered := l.answered[nodeID]; !answered {
		return false
	}
	l.granted[nodeID] = time.Now()
	return may()
}

// endsByLocked returns when what must not run twice has ended for sure on a node that is granted nothing more, since
// its epoch was raised. An earlier leader may have granted contact until this one was elected.
func (l *lead) endsByLocked(nodeID string) time.Time {
	last := l.began
	if at := l.granted[nodeID]; at.After(last) {
		last = at
	}
	return last.Add(contactFor + contactMargin)
}

// allHeard says whether this leader knows of all that runs thanks to contact: each node has told it, or what an
// earlier leader granted has run out.
func (s *Server) allHeard(l *lead) bool {
	return time.Since(l.began) > contactFor+contactMargin || len(s.silentNodes(l)) == 0
}

// waitAllHeard holds up the first start of what must not run twice: an earlier leader may have started it on a node
// that this one has not heard.
func (s *Server) waitAllHeard(ctx context.Context, l *lead, spec *pb.InstanceSpec) error {
	if !fact.StopsOnPartition(spec) || s.allHeard(l) {
		return nil
	}
	timer := time.NewTimer(time.Until(l.began.Add(contactFor + contactMargin)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return rpc.Errorf(rpc.Timeout, "a node that this new leader has not heard may run it already: %w", ctx.Err())
	}
}
