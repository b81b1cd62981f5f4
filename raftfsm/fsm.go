package raftfsm

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// FSM is the state that the Raft log adds up to. Its methods are safe for concurrent use.
type FSM struct {
	mu sync.RWMutex // guards all below

	clusterID string
	nodes     map[string]*pb.Node
	providers map[string]*pb.Provider
	settings  map[string]string
	changed   chan struct{} // closed and replaced with each change
}

var _ raft.FSM = (*FSM)(nil)

// New returns an empty FSM.
func New() *FSM {
	f := &FSM{changed: make(chan struct{})}
	f.resetLocked(&pb.Metadata{})
	return f
}

// NameTakenError says that a node can't have a name because another has it.
type NameTakenError struct {
	Name string
	Addr string // where the other one serves gRPC
}

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("node %q is already in the cluster (at %s); choose another --name", e.Name, e.Addr)
}

// ForeignClusterError says that a log entry or snapshot belongs to another cluster.
type ForeignClusterError struct{ Ours, Theirs string }

func (e *ForeignClusterError) Error() string {
	return fmt.Sprintf("this is cluster %s, not %s", e.Ours, e.Theirs)
}

// Apply carries out one command. What it returns is nil or an error; an unknown or damaged command
// is an error and changes nothing.
func (f *FSM) Apply(entry *raft.Log) any {
	cmd := &pb.Command{}
	if err := proto.Unmarshal(entry.Data, cmd); err != nil {
		return fmt.Errorf("command at index %d is damaged: %w", entry.Index, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.applyLocked(cmd); err != nil {
		return err
	}
	f.wakeLocked()
	return nil
}

func (f *FSM) applyLocked(cmd *pb.Command) error {
	switch op := cmd.GetOp().(type) {
	case *pb.Command_FoundCluster:
		return f.found(op.FoundCluster.GetClusterId())
	case *pb.Command_PutNode:
		return f.putNode(op.PutNode.GetNode())
	case *pb.Command_SetNodeState:
		return f.setNodeState(op.SetNodeState)
	case *pb.Command_RaiseNodeEpoch:
		return f.raiseEpoch(op.RaiseNodeEpoch)
	case *pb.Command_RemoveNode:
		delete(f.nodes, op.RemoveNode.GetNodeId())
		return nil
	case *pb.Command_PutProvider:
		return f.putProvider(op.PutProvider.GetProvider())
	case *pb.Command_RemoveProvider:
		delete(f.providers, op.RemoveProvider.GetProviderId())
		return nil
	case *pb.Command_PutSetting:
		return f.putSetting(op.PutSetting.GetKey(), op.PutSetting.GetValue())
	case *pb.Command_GiveUpNode:
		return f.giveUp(op.GiveUpNode.GetNodeId())
	case *pb.Command_RestoreMetadata:
		return f.restoreLocked(op.RestoreMetadata.GetMetadata())
	}
	return fmt.Errorf("unknown command: it is of a newer version, or of none")
}
