package operator

import (
	"context"
	"fmt"
	"slices"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// leadTimeout is how long the only voter of a new quorum may take to elect itself.
const leadTimeout = 30 * time.Second

// RecoverQuorum implements the RPC of that name.
func (s *Service) RecoverQuorum(ctx context.Context, req *pb.RecoverQuorumRequest) (*pb.RecoverQuorumResponse, error) {
	if !s.recovering.TryLock() {
		return nil, rpc.Errorf(rpc.InvalidRequest, "node %s is founding a new quorum already; see wasmatrix operator raft ls", s.cfg.NodeName)
	}
	defer s.recovering.Unlock()
	surveyed := s.survey(ctx)
	p, err := surveyed.judge(req.GetForce())
	if err != nil {
		return nil, err
	}
	resp := &pb.RecoverQuorumResponse{
		FounderId: s.cfg.NodeID, FounderName: s.cfg.NodeName, Survivors: p.Survivors, LastIndex: p.LastIndex,
		Generation: s.cluster.Quorum().Generation + 1,
	}
	for _, id := range p.GivenUp {
		resp.GivenUp = append(resp.GivenUp, surveyed.name(id))
	}
	slices.Sort(resp.GivenUp)
	if req.GetDryRun() {
		return resp, nil
	}
	if err := s.cluster.FoundQuorum(p.GivenUp); err != nil {
		return nil, err
	}
	// From here on the new quorum is a fact, also where the caller is gone.
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	for {
		changed := s.cluster.Changed()
		if now := s.cluster.Leadership(); now.Self {
			resp.Generation, resp.Term = s.cluster.Quorum().Generation, now.Term
			return resp, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("the new quorum is founded, and node %s does not lead it yet; see wasmatrix operator raft ls: %w", s.cfg.NodeName, ctx.Err())
		}
	}
}

func (s *Service) survey(ctx context.Context) survey {
	members := s.cluster.Members()
	states, silent := s.askAll(ctx, members)
	names := map[string]string{}
	for _, n := range s.fsm.Nodes() {
		names[n.GetNodeId()] = n.GetName()
	}
	return survey{Self: s.cfg.NodeID, ClusterID: s.cluster.ClusterID(), Members: members, States: states, Silent: silent, Names: names}
}
