package controlplane

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// RegisterNode writes a node into the metadata, or refuses it and says why.
func (s *Server) RegisterNode(ctx context.Context, req *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	node := req.GetNode()
	if !fact.ValidID(node.GetNodeId()) || !fact.ValidName(node.GetName()) {
		return nil, rpc.Errorf(rpc.InvalidRequest, "node %q (%s): want a name of 1 to 64 letters, digits, dots, dashes or underscores, and a UUID", node.GetName(), node.GetNodeId())
	}
	ours := s.cluster.ClusterID()
	if theirs := req.GetClusterId(); theirs != "" && theirs != ours {
		return nil, rpc.Errorf(rpc.InvalidRequest, "node %q belongs to cluster %s, and this is cluster %s; empty its data dir to let it join this one", node.GetName(), theirs, ours)
	}
	known, ok := s.fsm.Node(node.GetNodeId())
	if !ok || !sameRegistration(known, node) {
		if err := s.putNode(ctx, node); err != nil {
			return nil, err
		}
		if known, ok = s.fsm.Node(node.GetNodeId()); !ok {
			return nil, rpc.Errorf(rpc.Internal, "node %q was registered, but the metadata does not hold it", node.GetName())
		}
	}
	superseded, err := s.superseded(ctx, l, node.GetNodeId(), req.GetResuming())
	if err != nil {
		return nil, err
	}
	return &pb.RegisterNodeResponse{ClusterId: ours, Epoch: known.GetEpoch(), Term: l.fence.GetTerm(), Superseded: superseded}, nil
}

// superseded returns which of the instances that a node is about to run again were stopped, or started
// elsewhere, while it was away. What is only being started elsewhere may come to nothing: then it is the only one.
func (s *Server) superseded(ctx context.Context, l *lead, nodeID string, resuming map[string]uint64) ([]string, error) {
	if len(resuming) == 0 {
		return nil, nil
	}
	if err := l.waitRecovered(ctx); err != nil {
		return nil, err
	}
	var gone []string
	for id, generation := range resuming {
		if known := s.view.shown(id); known.GetGeneration() > generation || stoppedElsewhere(known, nodeID) {
			gone = append(gone, id)
		}
	}
	return gone, nil
}

// stoppedElsewhere says whether an instance was stopped where another node had it, by a leader that did not know of this one.
func stoppedElsewhere(known *pb.Instance, nodeID string) bool {
	return known.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_STOPPED && known.GetNodeId() != nodeID
}

// putNode writes a node into the metadata. A name that a node has which is not there any more goes to
// the new one: a host whose disk was lost comes back with another id.
func (s *Server) putNode(ctx context.Context, node *pb.Node) error {
	put := &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: node}}}
	err := s.cluster.Apply(ctx, put)
	var taken *raftfsm.NameTakenError
	if errors.As(err, &taken) {
		holder, lookup := s.nodeID(node.GetName())
		if m, known := s.member(holder); lookup != nil || (known && reachable(m)) {
			return rpc.Errorf(rpc.InvalidRequest, "%w", taken)
		}
		remove := &pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: holder}}}
		if err = s.cluster.Apply(ctx, remove); err == nil {
			s.cfg.Log.InfoContext(ctx, "a node takes the name of one that is gone", "peer", node.GetName(), "peer_id", node.GetNodeId(), "replaced_id", holder)
			err = s.cluster.Apply(ctx, put)
		}
	}
	if err != nil {
		return fmt.Errorf("register node %q: %w", node.GetName(), err)
	}
	return nil
}

// sameRegistration says whether the metadata has already what a node says of itself.
func sameRegistration(known, said *pb.Node) bool {
	switch known.GetState() {
	case pb.NodeState_NODE_STATE_LEFT, pb.NodeState_NODE_STATE_LOST: // it is back, and active with its registration
		return false
	}
	if known.GetGivenUp() || known.GetEpoch() < said.GetEpoch() {
		return false
	}
	k := proto.CloneOf(known)
	k.Epoch, k.LostBootId, k.LostSeq, k.State = said.GetEpoch(), said.GetLostBootId(), said.GetLostSeq(), said.GetState()
	return proto.Equal(k, said)
}
