package raftfsm

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func (f *FSM) found(clusterID string) error {
	switch {
	case clusterID == "":
		return errors.New("a cluster needs an id")
	case f.clusterID != "" && f.clusterID != clusterID:
		return &ForeignClusterError{Ours: f.clusterID, Theirs: clusterID}
	}
	f.clusterID = clusterID
	return nil
}

// putNode stores what a node says of itself. Its state is the cluster's to decide; one that left or was lost
// is active again. So is its epoch, but never below the one that it was told last: a quorum that was
// founded anew may not know it any more.
func (f *FSM) putNode(node *pb.Node) error {
	if node.GetNodeId() == "" || node.GetName() == "" {
		return errors.New("a node needs an id and a name")
	}
	for _, other := range f.nodes {
		if other.GetName() == node.GetName() && other.GetNodeId() != node.GetNodeId() && other.GetState() != pb.NodeState_NODE_STATE_LEFT {
			return &NameTakenError{Name: node.GetName(), Addr: other.GetRpcAddr()}
		}
	}
	stored := proto.CloneOf(node)
	stored.LostBootId, stored.LostSeq, stored.GivenUp, stored.State = "", 0, false, pb.NodeState_NODE_STATE_ACTIVE
	if known := f.nodes[node.GetNodeId()]; known != nil {
		if known.GetEpoch() >= stored.GetEpoch() {
			stored.Epoch, stored.LostBootId, stored.LostSeq = known.GetEpoch(), known.GetLostBootId(), known.GetLostSeq()
		}
		if known.GetState() == pb.NodeState_NODE_STATE_DRAINING {
			stored.State = known.GetState()
		}
	}
	f.nodes[node.GetNodeId()] = stored
	return nil
}

func (f *FSM) setNodeState(op *pb.SetNodeState) error {
	node, err := f.node(op.GetNodeId())
	if err != nil {
		return err
	}
	switch op.GetState() {
	case pb.NodeState_NODE_STATE_ACTIVE, pb.NodeState_NODE_STATE_DRAINING, pb.NodeState_NODE_STATE_LEFT:
	default:
		return fmt.Errorf("node state %d is unknown", op.GetState())
	}
	changed := proto.CloneOf(node)
	changed.State = op.GetState()
	f.nodes[op.GetNodeId()] = changed
	return nil
}

func (f *FSM) raiseEpoch(op *pb.RaiseNodeEpoch) error {
	node, err := f.node(op.GetNodeId())
	if err != nil {
		return err
	}
	if node.GetEpoch() != op.GetFromEpoch() { // told twice: it is raised already
		return nil
	}
	changed := proto.CloneOf(node)
	changed.Epoch++
	changed.LostBootId, changed.LostSeq = op.GetBootId(), op.GetSeq()
	changed.State, changed.GivenUp = pb.NodeState_NODE_STATE_LOST, false
	f.nodes[op.GetNodeId()] = changed
	return nil
}

func (f *FSM) node(id string) (*pb.Node, error) {
	if node := f.nodes[id]; node != nil {
		return node, nil
	}
	return nil, fmt.Errorf("node %q is not in the metadata", id)
}

func (f *FSM) putProvider(p *pb.Provider) error {
	if p.GetProviderId() == "" || p.GetProviderType() == "" {
		return errors.New("a provider needs an id and a type")
	}
	f.providers[p.GetProviderId()] = proto.CloneOf(p)
	return nil
}

func (f *FSM) putSetting(key, value string) error {
	if key == "" {
		return errors.New("a setting needs a key")
	}
	if value == "" {
		delete(f.settings, key)
		return nil
	}
	f.settings[key] = value
	return nil
}
