package cluster

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// What gossip knows of a node.
const (
	stateAlive = "alive"
	stateDead  = "dead"
	stateLeft  = "left"
)

// Member is one node as gossip sees it.
type Member struct {
	NodeID, Name                  string
	GossipAddr, RPCAddr, HTTPAddr string
	NATSRouteAddr                 string // where its messaging server takes its peers; empty where it has none
	State                         string // alive, dead or left
	// By the configuration, where this node has one; else by what the node says of itself.
	Voter bool
	// By what the node says of itself. A node that was away when its vote was taken has an old configuration and does not
	// know; so Voter is not enough where it matters to miss none.
	ClaimsVote bool
	Version    string
	Self       bool
}

// member is what is kept of a node, also after gossip has forgotten it.
type member struct {
	Member
	meta  *pb.GossipMeta
	since time.Time // of State
}

// ForeignClusterError says that a node belongs to another cluster.
type ForeignClusterError struct{ Ours, Theirs, Name, Addr string }

func (e *ForeignClusterError) Error() string {
	return fmt.Sprintf("node %q at %s belongs to cluster %s, and this node to cluster %s: two clusters are never merged; empty the data dir of a node to let it join the other", e.Name, e.Addr, e.Theirs, e.Ours)
}

// NameTakenError says that another node has this node's name.
type NameTakenError struct{ Name, Addr string }

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("node %q is already in the cluster (at %s); choose another --name", e.Name, e.Addr)
}

// VersionError says that two nodes don't speak the same protocol.
type VersionError struct {
	Name, Addr, Version string
	Ours, Theirs        uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("node %q at %s runs wasmatrix %s, whose nodes speak protocol %d, and this node speaks %d: upgrade the older one", e.Name, e.Addr, e.Version, e.Theirs, e.Ours)
}

// compatible says why a node can't be a member beside this one.
func (c *Cluster) compatible(peer *memberlist.Node, meta *pb.GossipMeta) error {
	addr := peer.Address()
	if meta.GetProtocol() != protocol {
		return &VersionError{Name: meta.GetName(), Addr: addr, Version: meta.GetVersion(), Ours: protocol, Theirs: meta.GetProtocol()}
	}
	ours, theirs := c.ClusterID(), meta.GetClusterId()
	if ours != "" && theirs != "" && ours != theirs {
		return &ForeignClusterError{Ours: ours, Theirs: theirs, Name: meta.GetName(), Addr: addr}
	}
	if meta.GetName() == c.cfg.NodeName {
		return &NameTakenError{Name: meta.GetName(), Addr: addr}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.Name == meta.GetName() && m.NodeID != peer.Name && m.State == stateAlive {
			return &NameTakenError{Name: meta.GetName(), Addr: m.GossipAddr}
		}
	}
	return nil
}

// saw notes what gossip says of a node.
func (c *Cluster) saw(n *memberlist.Node, state string) {
	meta := &pb.GossipMeta{}
	if err := proto.Unmarshal(n.Meta, meta); err != nil {
		c.cfg.Log.Warn("a node says nothing of itself that can be read", "peer_id", n.Name, "addr", n.Address(), "err", err)
		return
	}
	if state == stateDead && meta.GetLeaving() {
		state = stateLeft
	}
	ip := n.Addr.String()
	at := func(port uint32) string { return net.JoinHostPort(ip, strconv.FormatUint(uint64(port), 10)) }
	now := &member{
		Member: Member{
			NodeID: n.Name, Name: meta.GetName(), State: state, Voter: meta.GetVoter(), Version: meta.GetVersion(),
			GossipAddr: n.Address(), RPCAddr: at(meta.GetRpcPort()), HTTPAddr: at(meta.GetHttpPort()),
			Self: n.Name == c.cfg.NodeID,
		},
		meta:  meta,
		since: time.Now(),
	}
	if port := meta.GetNatsRoutePort(); port != 0 {
		now.NATSRouteAddr = at(port)
	}
	c.mu.Lock()
	if old := c.members[n.Name]; old != nil && old.State == state {
		now.since = old.since
	}
	c.members[n.Name] = now
	told := hint{NodeID: meta.GetLeaderId(), Term: meta.GetLeaderTerm()}
	if told.NodeID == n.Name {
		told.from = fromItself
	}
	if told.replaces(c.hint) {
		c.hint = told
	}
	if q := quorumOf(meta); q.newerThan(c.newest) {
		c.newest = q
	}
	c.mu.Unlock()
	if id := meta.GetClusterId(); id != "" {
		c.learnClusterID(id)
	}
	c.wake()
}

// Members returns all nodes that gossip knows, this one included, and those that it knew since this
// process started; by name.
func (c *Cluster) Members() []Member {
	voters := map[string]struct{}{}
	ids, authoritative := c.voters()
	for _, id := range ids {
		voters[id] = struct{}{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Member, 0, len(c.members))
	for _, m := range c.members {
		one := m.Member
		one.ClaimsVote = one.Voter
		if authoritative {
			_, one.Voter = voters[one.NodeID]
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Voters returns the ids of the Raft voters: by the configuration on a voter, elsewhere by gossip.
func (c *Cluster) Voters() []string {
	ids, _ := c.voters()
	return ids
}

func (c *Cluster) voters() (ids []string, authoritative bool) {
	if ids := c.configuredVoters(); slices.Contains(ids, c.cfg.NodeID) {
		return ids, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, m := range c.members {
		if m.Voter && m.State == stateAlive {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, false
}

// addrOf returns where a node serves Raft and gRPC, or nothing.
func (c *Cluster) addrOf(nodeID string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.members[nodeID]; m != nil {
		return m.RPCAddr
	}
	return ""
}

// meta is what this node tells of itself.
func (c *Cluster) meta() *pb.GossipMeta {
	voter := slices.Contains(c.configuredVoters(), c.cfg.NodeID)
	leader := c.Leadership()
	quorum := c.Quorum()
	c.mu.Lock()
	defer c.mu.Unlock()
	return &pb.GossipMeta{
		QuorumGeneration: quorum.Generation, QuorumFounder: quorum.Founder,
		Name: c.cfg.NodeName, ClusterId: c.clusterID, Protocol: protocol, Version: c.cfg.Version,
		RpcPort: uint32(c.cfg.RPCPort), HttpPort: uint32(c.cfg.HTTPPort),
		NatsPort: uint32(c.cfg.NATSPort), NatsRoutePort: uint32(c.cfg.NATSRoutePort),
		Voter: voter, LeaderId: leader.NodeID, LeaderTerm: leader.Term,
		BootstrapExpect: uint32(c.cfg.BootstrapExpect), Unfounded: c.clusterID == "", Leaving: c.leaving,
	}
}

func quorumOf(meta *pb.GossipMeta) Quorum {
	return Quorum{Generation: meta.GetQuorumGeneration(), Founder: meta.GetQuorumFounder()}
}

func (c *Cluster) ownAddr() string {
	return net.JoinHostPort(c.cfg.Advertise, strconv.Itoa(c.cfg.RPCPort))
}
