package raftfsm

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// SettingReplicas is the setting that says which node founded the group that replicates keys, and as the how manieth. A founding
// is never taken back.
const SettingReplicas = "kv.replicas"

// SettingClusterName is the setting that says what the founder called the cluster; not set, it is DefaultClusterName. It is a
// setting, so that nodes of versions that know no name keep it, too.
const (
	SettingClusterName = "cluster.name"
	DefaultClusterName = "wasmatrix"
)

// Restored is what Merge made of two states.
type Restored struct {
	Metadata *pb.Metadata
	Added    []string // names of nodes that only the saved state knew
	Raised   []string // names of nodes whose epoch was higher in the saved state
}

// Merge returns what is known once a saved state is restored over the present one. Which nodes there are
// and how they are is fact: what is known now stays, and the saved state adds the nodes that nobody knows
// any more. An epoch fences a node that was declared lost, so the highest one wins. Providers and
// settings are somebody's choice, and become those of the saved state, but for what is fact: [SettingReplicas] and
// [SettingClusterName].
func Merge(now, saved *pb.Metadata) (Restored, error) {
	if now.GetClusterId() != "" && now.GetClusterId() != saved.GetClusterId() {
		return Restored{}, &ForeignClusterError{Ours: now.GetClusterId(), Theirs: saved.GetClusterId()}
	}
	if err := whole(saved); err != nil {
		return Restored{}, err
	}
	nodes, names := map[string]*pb.Node{}, map[string]struct{}{}
	for _, n := range now.GetNodes() {
		nodes[n.GetNodeId()] = proto.CloneOf(n)
		if n.GetState() != pb.NodeState_NODE_STATE_LEFT {
			names[n.GetName()] = struct{}{}
		}
	}
	var r Restored
	for _, n := range saved.GetNodes() {
		known := nodes[n.GetNodeId()]
		_, taken := names[n.GetName()]
		switch {
		case known == nil && taken: // another node has its name now, as after the loss of a disk
		case known == nil:
			nodes[n.GetNodeId()] = proto.CloneOf(n)
			r.Added = append(r.Added, n.GetName())
		case n.GetEpoch() > known.GetEpoch():
			known.Epoch, known.LostBootId, known.LostSeq = n.GetEpoch(), n.GetLostBootId(), n.GetLostSeq()
			r.Raised = append(r.Raised, known.GetName())
		}
	}
	r.Metadata = &pb.Metadata{
		ClusterId: saved.GetClusterId(), Providers: saved.GetProviders(), Settings: maps.Clone(saved.GetSettings()),
		Nodes: slices.SortedFunc(maps.Values(nodes), func(a, b *pb.Node) int { return strings.Compare(a.GetNodeId(), b.GetNodeId()) }),
	}
	for _, key := range []string{SettingReplicas, SettingClusterName} {
		if fact := now.GetSettings()[key]; fact != "" {
			if r.Metadata.Settings == nil {
				r.Metadata.Settings = map[string]string{}
			}
			r.Metadata.Settings[key] = fact
		}
	}
	slices.Sort(r.Added)
	slices.Sort(r.Raised)
	return r, nil
}

// whole says what no state that was ever saved would lack.
func whole(m *pb.Metadata) error {
	if m.GetClusterId() == "" {
		return errors.New("a saved state needs a cluster id")
	}
	for _, n := range m.GetNodes() {
		if n.GetNodeId() == "" || n.GetName() == "" {
			return errors.New("a saved state has a node without id or name")
		}
	}
	for _, p := range m.GetProviders() {
		if p.GetProviderId() == "" || p.GetProviderType() == "" {
			return errors.New("a saved state has a provider without id or type")
		}
	}
	return nil
}

func (f *FSM) restoreLocked(saved *pb.Metadata) error {
	r, err := Merge(f.metadataLocked(), saved)
	if err != nil {
		return err
	}
	f.resetLocked(r.Metadata)
	return nil
}

// giveUp notes that a new quorum was founded without a node.
func (f *FSM) giveUp(id string) error {
	node, err := f.node(id)
	if err != nil {
		return err
	}
	changed := proto.CloneOf(node)
	changed.GivenUp = true
	f.nodes[id] = changed
	return nil
}

// Reset forgets everything: what this node knows belongs to a quorum that was given up.
func (f *FSM) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resetLocked(&pb.Metadata{})
	f.wakeLocked()
}
