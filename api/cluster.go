package api

import (
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Member is one node.
type Member struct {
	NodeID     string            `json:"node_id"`
	Name       string            `json:"name"`
	GossipAddr string            `json:"gossip_addr"`
	RPCAddr    string            `json:"rpc_addr"`
	HTTPAddr   string            `json:"http_addr"`
	Role       string            `json:"role"`
	State      string            `json:"state"`
	Instances  uint32            `json:"instances"`
	Labels     map[string]string `json:"labels"`
	Version    string            `json:"version"`

	// The sum of the memory limits of its instances.
	CommittedMemoryBytes uint64 `json:"committed_memory_bytes"`
	// The sum of what they were promised of the CPU, in thousandths of a core.
	CommittedCPUMillicores uint32 `json:"committed_cpu_millicores"`
	// What it takes on at the most. The last is 0 where its version knows no limits of computing.
	MaxInstances     uint32 `json:"max_instances"`
	MaxMemoryBytes   uint64 `json:"max_memory_bytes"`
	MaxCPUMillicores uint32 `json:"max_cpu_millicores"`
	// Null where nothing was heard of that for a while.
	Vitals *Vitals `json:"vitals"`
}

// FromMember returns the JSON shape of a member.
func FromMember(m *pb.Member) Member {
	return Member{
		NodeID:                 m.GetNodeId(),
		Name:                   m.GetName(),
		GossipAddr:             m.GetGossipAddr(),
		RPCAddr:                m.GetRpcAddr(),
		HTTPAddr:               m.GetHttpAddr(),
		Role:                   m.GetRole(),
		State:                  m.GetState(),
		Instances:              m.GetInstances(),
		Labels:                 notNil(m.GetLabels()),
		Version:                m.GetVersion(),
		CommittedMemoryBytes:   m.GetCommittedMemoryBytes(),
		CommittedCPUMillicores: m.GetCommittedCpuMillicores(),
		MaxInstances:           m.GetLimits().GetMaxInstances(),
		MaxMemoryBytes:         m.GetLimits().GetMaxMemoryBytes(),
		MaxCPUMillicores:       m.GetLimits().GetMaxCpuMillicores(),
		Vitals:                 fromVitals(m.GetVitals()),
	}
}

// FromMembers returns the JSON shapes of members, in their order; never nil.
func FromMembers(all []*pb.Member) []Member {
	shapes := make([]Member, 0, len(all))
	for _, m := range all {
		shapes = append(shapes, FromMember(m))
	}
	return shapes
}

// Status is the cluster at a glance.
type Status struct {
	ClusterID    string            `json:"cluster_id"`
	Leader       Leader            `json:"leader"`
	Term         uint64            `json:"term"`
	Recovering   bool              `json:"recovering"`
	MissingNodes []string          `json:"missing_nodes"`
	Voters       []string          `json:"voters"`
	Members      MemberCounts      `json:"members"`
	Instances    map[string]uint32 `json:"instances"`
	Version      string            `json:"version"`

	// What its founder called it; empty where the leader is of a version that knows no name.
	ClusterName string `json:"cluster_name"`
}

// Leader is the node that leads.
type Leader struct {
	NodeID string `json:"node_id"`
	Name   string `json:"name"`
}

// MemberCounts is how many members there are. One that drains, or is suspected and not yet declared
// dead, is alive.
type MemberCounts struct {
	Alive uint32 `json:"alive"`
	Dead  uint32 `json:"dead"`
	Left  uint32 `json:"left"`
}

// FromStatus returns the JSON shape of the cluster's status.
func FromStatus(s *pb.GetClusterStatusResponse) Status {
	instances := s.GetInstances()
	if instances == nil {
		instances = map[string]uint32{}
	}
	members := s.GetMembers()
	return Status{
		ClusterID:    s.GetClusterId(),
		Leader:       Leader{NodeID: s.GetLeaderId(), Name: s.GetLeaderName()},
		Term:         s.GetTerm(),
		Recovering:   s.GetRecovering(),
		MissingNodes: append([]string{}, s.GetMissingNodes()...),
		Voters:       append([]string{}, s.GetVoters()...),
		Members: MemberCounts{
			Alive: members["alive"] + members["suspect"] + members["draining"],
			Dead:  members["dead"],
			Left:  members["left"],
		},
		Instances: instances,
		Version:   s.GetVersion(),

		ClusterName: s.GetClusterName(),
	}
}

// Event is something that happened.
type Event struct {
	Time       *time.Time        `json:"time"`
	Type       string            `json:"type"`
	NodeID     string            `json:"node_id"`
	InstanceID string            `json:"instance_id"`
	Name       string            `json:"name"`
	Details    map[string]string `json:"details"`

	EventID string `json:"event_id"`
}

// FromEvent returns the JSON shape of an event.
func FromEvent(e *pb.Event) Event {
	return Event{
		Time:       timeOf(e.GetTime()),
		Type:       e.GetType(),
		NodeID:     e.GetNodeId(),
		InstanceID: e.GetInstanceId(),
		Name:       e.GetName(),
		Details:    notNil(e.GetDetails()),
		EventID:    e.GetEventId(),
	}
}

// LogEntry is a line of an instance's output, or a part of one that was too long.
type LogEntry struct {
	Time *time.Time `json:"time"`
	// "stdout" or "stderr"; "wasmatrix" where the agent has something to say.
	Stream string `json:"stream"`
	// Bytes that are not UTF-8 are replaced; `logs` without JSON prints them as they are.
	Line string `json:"line"`
	Seq  uint64 `json:"seq"`
}

// FromLogEntry returns the JSON shape of a piece of output.
func FromLogEntry(e *pb.LogEntry) LogEntry {
	return LogEntry{Time: timeOf(e.GetTime()), Stream: e.GetStream(), Line: string(e.GetLine()), Seq: e.GetSeq()}
}

// Module is a module of the cluster.
type Module struct {
	ModuleHash string     `json:"module_hash"`
	SizeBytes  uint64     `json:"size_bytes"`
	StoredAt   *time.Time `json:"stored_at"`
	// The names of the nodes that hold it; none where only instances know of it.
	Nodes []string `json:"nodes"`
	// How many instances reference it, ended ones included, and how many of them are live.
	Instances     uint32 `json:"instances"`
	LiveInstances uint32 `json:"live_instances"`
}

// FromModule returns the JSON shape of a module.
func FromModule(m *pb.CatalogModule) Module {
	return Module{
		ModuleHash: m.GetModule().GetModuleHash(), SizeBytes: m.GetModule().GetSizeBytes(), StoredAt: timeOf(m.GetModule().GetStoredAt()),
		Nodes: append([]string{}, m.GetNodeNames()...), Instances: m.GetInstances(), LiveInstances: m.GetLiveInstances(),
	}
}
