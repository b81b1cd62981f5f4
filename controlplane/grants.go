package controlplane

import (
	"context"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// AssignCapability gives an instance grants, while it runs.
func (s *Server) AssignCapability(ctx context.Context, req *pb.AssignCapabilityRequest) (*pb.AssignCapabilityResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	if len(req.GetGrants()) == 0 {
		return nil, rpc.Errorf(rpc.InvalidRequest, "nothing to grant: give at least one ID=PERMISSION")
	}
	grants, err := s.typed(req.GetGrants())
	if err != nil {
		return nil, err
	}
	if err := s.foundReplicasFor(ctx, l, grants); err != nil {
		return nil, err
	}
	i, err := s.changeGrants(ctx, l, req.GetRef(), &pb.ChangeGrantsRequest{Assign: grants})
	return &pb.AssignCapabilityResponse{Instance: i}, err
}

// RevokeCapability takes permissions or whole grants from an instance.
func (s *Server) RevokeCapability(ctx context.Context, req *pb.RevokeCapabilityRequest) (*pb.RevokeCapabilityResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	if req.GetCapabilityId() == "" {
		return nil, rpc.Errorf(rpc.InvalidRequest, "nothing to revoke: give the id of a capability")
	}
	take := &pb.Grant{CapabilityId: req.GetCapabilityId(), Permissions: req.GetPermissions()}
	i, err := s.changeGrants(ctx, l, req.GetRef(), &pb.ChangeGrantsRequest{Revoke: []*pb.Grant{take}})
	return &pb.RevokeCapabilityResponse{Instance: i}, err
}

// typed gives grants the types of their providers, and says what is wrong with them.
func (s *Server) typed(grants []*pb.Grant) ([]*pb.Grant, error) {
	typed := make([]*pb.Grant, 0, len(grants))
	for _, g := range grants {
		p, ok := s.fsm.Provider(g.GetCapabilityId())
		if !ok {
			return nil, rpc.Errorf(rpc.CapabilityNotFound, "no provider has the id %q; see wasmatrix provider ls", g.GetCapabilityId())
		}
		typed = append(typed, &pb.Grant{CapabilityId: g.GetCapabilityId(), ProviderType: p.GetProviderType(), Permissions: g.GetPermissions()})
	}
	typed, err := capability.Normalize(typed)
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	return typed, nil
}

// readyGrants completes the grants of a spec that is to be started, and for a first start refuses what could be reached from no
// node.
func (s *Server) readyGrants(ctx context.Context, l *lead, spec *pb.InstanceSpec, first bool) error {
	if len(spec.GetGrants()) == 0 {
		return nil
	}
	grants, err := s.typed(spec.GetGrants())
	if err != nil {
		return err
	}
	spec.Grants = grants // the spec is this request's own
	if !first {
		return nil
	}
	for _, g := range grants {
		p, ok := s.fsm.Provider(g.GetCapabilityId())
		switch {
		case !ok || p.GetState() == pb.ProviderState_PROVIDER_STATE_STOPPED:
			return rpc.Errorf(rpc.ProviderUnavailable, "provider %q is stopped; start it again with wasmatrix provider start %s --id %s", g.GetCapabilityId(), p.GetProviderType(), g.GetCapabilityId())
		case len(s.placesOf(p)) == 0:
			return rpc.Errorf(rpc.ProviderUnavailable, "provider %q runs on no node that is alive; see wasmatrix provider inspect %s", g.GetCapabilityId(), g.GetCapabilityId())
		}
	}
	return s.foundReplicasFor(ctx, l, grants)
}

// changeGrants has the agent of an instance change what that may do. While it does, the instance is not moved, and a move
// that began before is waited for: it takes the grants along that there are then.
func (s *Server) changeGrants(ctx context.Context, l *lead, ref string, order *pb.ChangeGrantsRequest) (*pb.Instance, error) {
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	found, err := s.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: ref})
	if err != nil {
		return nil, err
	}
	one := []*pb.Instance{found.GetInstance()}
	id := one[0].GetInstanceId()
	l.beginStops(one)
	defer l.endStops(one)
	if err := s.waitStarted(ctx, l, id); err != nil {
		return nil, err
	}
	i := s.view.get(id)
	m, known := s.member(i.GetNodeId())
	_, underWay := l.orderedLater(i)
	switch {
	case i == nil || !fact.Live(i.GetStatus()):
		return nil, rpc.Errorf(rpc.InvalidRequest, "instance %s has ended: it can do nothing any more", id)
	case i.GetNodeId() == "":
		return nil, rpc.Errorf(rpc.CommunicationFailure, "instance %s is on no node now: it waits for one, since its own was lost; try again when it runs, or stop it", id)
	case !known || !reachable(m):
		return nil, rpc.Errorf(rpc.CommunicationFailure, "node %s, where instance %s is, can't be reached, so what the instance may do there can't be changed; try again when it is back, or stop the instance", i.GetNodeName(), id)
	case underWay:
		return nil, rpc.Errorf(rpc.CommunicationFailure, "an order to move instance %s to another node was not answered, and may still be carried out with the grants of before; stop the instance, or try again under the next leader (wasmatrix operator raft transfer)", id)
	}
	agent, err := s.agent(m)
	if err != nil {
		return nil, err
	}
	order.Fence, order.InstanceId, order.Generation = s.fenceFor(l, m.NodeID), id, i.GetGeneration()
	resp, err := agent.ChangeGrants(ctx, order)
	if err != nil {
		if l.ctx.Err() != nil {
			return nil, s.notLeading()
		}
		return nil, err
	}
	s.view.put(resp.GetInstance())
	if err := s.leadsStill(ctx, l); err != nil {
		return nil, err
	}
	return s.durable([]*pb.Instance{resp.GetInstance()})[0], nil
}
