package controlplane

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// A start or stop is acknowledged when most of the voters have the record of it, counting the instance's own node:
// no leader can be elected without one of them, and none declares a node lost before it has asked most of them for
// what they know of it (loss.go). The agents wait for that before they answer an order (agent/witness.go).

// confirmTimeout is how long one node may take to say that most voters know its story. Then the caller had better ask
// again: by that time the node may count as gone.
const confirmTimeout = 3 * time.Second

// confirm waits until most voters have records that were there already, before they are acknowledged: an earlier
// leader may have gone before they had. Of a node that can't be asked, what this leader has is what there is.
func (s *Server) confirm(ctx context.Context, l *lead, known []*pb.Instance) error {
	ofNode := map[string][]*pb.Instance{}
	for _, i := range known {
		ofNode[i.GetNodeId()] = append(ofNode[i.GetNodeId()], i)
	}
	var g errgroup.Group
	for nodeID, some := range ofNode {
		if m, ok := s.member(nodeID); ok && reachable(m) {
			g.Go(func() error { return s.confirmOn(ctx, l, m, some) })
		}
	}
	err := g.Wait()
	if err != nil && l.ctx.Err() != nil { // cut short by the end of the leadership
		return s.notLeading()
	}
	return err
}

func (s *Server) confirmOn(ctx context.Context, l *lead, m cluster.Member, known []*pb.Instance) error {
	sure, err := s.vouchedFor(ctx, l, m, known)
	if err != nil {
		return err
	}
	for _, i := range known {
		if !slices.Contains(sure, i) && s.view.holds(i) {
			return rpc.Errorf(rpc.CommunicationFailure, "%s was given up on node %s just now; try again", describe([]*pb.Instance{i}), m.Name)
		}
	}
	return nil
}

// vouchedFor returns those records that their agent stands by: they, or later ones of those instances, are on its disk and
// known to most voters.
func (s *Server) vouchedFor(ctx context.Context, l *lead, m cluster.Member, known []*pb.Instance) (sure []*pb.Instance, err error) {
	agent, err := s.agent(m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	req := &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: known[0].GetInstanceId(), Fence: s.fenceFor(l, m.NodeID)}
	for _, i := range known {
		req.InstanceIds = append(req.InstanceIds, i.GetInstanceId())
	}
	resp, err := agent.QueryInstance(ctx, req)
	if rpc.CodeOf(err) == rpc.InstanceNotFound || err == nil && !resp.GetVouched() { // an older agent, which looks at no more than one
		return known, nil
	}
	if err != nil {
		e := rpc.FromError(err)
		if ctx.Err() != nil {
			e.Code = rpc.CommunicationFailure
		}
		return nil, rpc.Errorf(e.Code, "%s on node %s: %s", describe(known), m.Name, e.Message)
	}
	generations := map[string]uint64{}
	for _, i := range resp.GetInstances() {
		generations[i.GetInstanceId()] = i.GetGeneration()
	}
	for _, i := range known {
		if generation, ok := generations[i.GetInstanceId()]; ok && generation >= i.GetGeneration() {
			sure = append(sure, i)
		}
	}
	return sure, nil
}

// leadsStill asks most voters whether they are in this leader's term, before what they know is acknowledged. A leader that
// was frozen, or cut off, may have been deposed meanwhile, and what it had stopped be started elsewhere by the next one:
// voters take reports whoever leads. Who leads after this was elected by voters that know.
func (s *Server) leadsStill(ctx context.Context, l *lead) error {
	if !s.inItsTerm(ctx, l) {
		return rpc.Errorf(rpc.NoLeader, "node %s does not lead for sure any more: most voters don't answer it, or are in a later term; try again", s.cfg.NodeName)
	}
	return nil
}

// answeredInTerm says whether the answers to the orders of a start have said already what leadsStill would ask for.
func (s *Server) answeredInTerm(l *lead, calls map[string]*startCall) bool {
	term := l.fence.GetTerm()
	return mostAnsweredIn(term, s.cfg.NodeID, s.cluster.Voters(), calls) && s.cluster.Term() == term
}

// mostAnsweredIn says whether for each instance this node and the one that started it are most of the voters, the other being in
// that term when both knew of the instance.
func mostAnsweredIn(term uint64, self string, voters []string, calls map[string]*startCall) bool {
	if len(voters) > 3 || !slices.Contains(voters, self) {
		return false
	}
	for _, call := range calls {
		if call.failure != nil {
			continue // nothing is acknowledged of it
		}
		if on := call.instance.GetNodeId(); call.term != term || on == self || !slices.Contains(voters, on) {
			return false
		}
	}
	return true
}

// witnessLocked marks a record of another node as witnessed: this node has it now. The record has just
// come off the wire, and nobody else reads it yet, or it is marked already.
func (v *view) witnessLocked(i *pb.Instance) {
	if i.GetNodeId() != v.self && !provisional(i) && i.GetDurability() != pb.Durability_DURABILITY_WITNESSED {
		i.Durability = pb.Durability_DURABILITY_WITNESSED
	}
}

// durable returns records with what is known of those of this node: whether another voter has them.
func (s *Server) durable(all []*pb.Instance) []*pb.Instance {
	for n, i := range all {
		if i.GetNodeId() == s.cfg.NodeID && !provisional(i) && s.local.Witnessed(i.GetInstanceId()) {
			all[n] = proto.CloneOf(i)
			all[n].Durability = pb.Durability_DURABILITY_WITNESSED
		}
	}
	return all
}
