package raftfsm

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// ClusterID returns the cluster's id, or nothing before the cluster is founded.
func (f *FSM) ClusterID() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.clusterID
}

// ClusterName returns what the founder called the cluster.
func (f *FSM) ClusterName() string {
	if name := f.Setting(SettingClusterName); name != "" {
		return name
	}
	return DefaultClusterName
}

// Node returns a node's metadata. The message is shared and must not be changed.
func (f *FSM) Node(id string) (*pb.Node, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	node, ok := f.nodes[id]
	return node, ok
}

// Nodes returns all nodes, by id. The messages are shared and must not be changed.
func (f *FSM) Nodes() []*pb.Node {
	f.mu.RLock()
	defer f.mu.RUnlock()
	nodes := slices.Collect(maps.Values(f.nodes))
	slices.SortFunc(nodes, func(a, b *pb.Node) int { return strings.Compare(a.GetNodeId(), b.GetNodeId()) })
	return nodes
}

// Provider returns a provider. The message is shared and must not be changed.
func (f *FSM) Provider(id string) (*pb.Provider, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, ok := f.providers[id]
	return p, ok
}

// Providers returns all providers, by id. The messages are shared and must not be changed.
func (f *FSM) Providers() []*pb.Provider {
	f.mu.RLock()
	defer f.mu.RUnlock()
	all := slices.Collect(maps.Values(f.providers))
	slices.SortFunc(all, func(a, b *pb.Provider) int { return strings.Compare(a.GetProviderId(), b.GetProviderId()) })
	return all
}

// Setting returns a cluster setting, or nothing.
func (f *FSM) Setting(key string) string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.settings[key]
}

// Metadata returns a copy of everything, lists sorted by id.
func (f *FSM) Metadata() *pb.Metadata {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.metadataLocked()
}

func (f *FSM) metadataLocked() *pb.Metadata {
	m := &pb.Metadata{ClusterId: f.clusterID, Settings: maps.Clone(f.settings)}
	for _, id := range slices.Sorted(maps.Keys(f.nodes)) {
		m.Nodes = append(m.Nodes, proto.CloneOf(f.nodes[id]))
	}
	for _, id := range slices.Sorted(maps.Keys(f.providers)) {
		m.Providers = append(m.Providers, proto.CloneOf(f.providers[id]))
	}
	return m
}

// Changed is closed at the next change.
func (f *FSM) Changed() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed
}

func (f *FSM) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}
