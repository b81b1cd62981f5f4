package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/agent"
	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/controlplane"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	clusterID = "11111111-1111-4111-8111-111111111111"
	// deadAfter and deadWithin are when gossip takes a node for dead that nobody reaches (measured: cluster/).
	deadAfter, deadWithin = 2500 * time.Millisecond, 3500 * time.Millisecond
	// backAfter is how long gossip takes to see that a node is there.
	backAfter = 300 * time.Millisecond
)

// clusterView is what one life of a node knows of the cluster: what cluster.Cluster would tell it.
type clusterView struct {
	sim  *Sim
	life *life

	mu      sync.Mutex // guards what follows
	peers   []*peer    // by number; of itself, too
	hint    cluster.Leadership
	last    string // what it knew at the last look
	changed chan struct{}
}

// peer is what gossip knows of a node.
type peer struct {
	node    *node
	known   bool
	alive   bool
	since   time.Time // it is reached, or is not
	reached bool
	dies    time.Duration // how long it may go unreached
}

var (
	_ controlplane.Cluster = (*clusterView)(nil)
	_ agent.VoterFinder    = votersOf{}
	_ rpc.LeaderFinder     = leaderOf{}
)

func newClusterView(s *Sim, l *life) *clusterView {
	c := &clusterView{sim: s, life: l, changed: make(chan struct{})}
	for _, n := range s.nodes {
		self := n == l.node
		c.peers = append(c.peers, &peer{node: n, known: self, alive: self, since: time.Now(), dies: deadAfter})
	}
	return c
}

// look is what gossip does in one pace.
func (c *clusterView) look(reaches func(a, b *node) bool, leader cluster.Leadership) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		if p.node == c.life.node {
			continue
		}
		if reached := reaches(c.life.node, p.node); reached != p.reached {
			p.reached, p.since = reached, time.Now()
			p.dies = deadAfter + time.Duration(c.sim.random.Int64N(int64(deadWithin-deadAfter)))
		}
		switch took := time.Since(p.since); {
		case p.reached && took > backAfter:
			p.known, p.alive = true, true
		case !p.reached && took > p.dies:
			p.alive = false
		}
	}
	if leader.Term > c.hint.Term {
		c.hint = leader
	}
	c.noteLocked()
}

// noteLocked wakes who waits if there is news.
func (c *clusterView) noteLocked() {
	now := fmt.Sprint(c.leadershipLocked(), c.membersLocked())
	if now != c.last {
		c.last = now
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// Changed implements controlplane.Cluster.
func (c *clusterView) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Leadership implements controlplane.Cluster.
func (c *clusterView) Leadership() cluster.Leadership {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leadershipLocked()
}

func (c *clusterView) leadershipLocked() cluster.Leadership {
	v := c.life.node.voter
	if v == nil {
		if c.hint.NodeID == "" || !c.aliveLocked(c.hint.NodeID) {
			return cluster.Leadership{}
		}
		return c.hint
	}
	q := c.sim.quorum
	q.mu.Lock()
	defer q.mu.Unlock()
	if v.life != c.life || v.leader == "" || v.leads && c.hint.Term > v.term {
		return cluster.Leadership{}
	}
	return cluster.Leadership{NodeID: v.leader, Addr: c.sim.byID[v.leader].addr, Term: v.term, Self: v.leads}
}

func (c *clusterView) aliveLocked(id string) bool {
	return slices.ContainsFunc(c.peers, func(p *peer) bool { return p.node.id == id && p.alive })
}

// SetLeaderHint takes what an order shows of its leader.
func (c *clusterView) SetLeaderHint(nodeID, addr string, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term > c.hint.Term {
		c.hint = cluster.Leadership{NodeID: nodeID, Addr: addr, Term: term}
		c.noteLocked()
	}
}

// Members implements controlplane.Cluster.
func (c *clusterView) Members() []cluster.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.membersLocked()
}

func (c *clusterView) membersLocked() []cluster.Member {
	var all []cluster.Member
	for _, p := range c.peers {
		if !p.known {
			continue
		}
		m := cluster.Member{
			NodeID: p.node.id, Name: p.node.name, RPCAddr: p.node.addr, State: "dead", Voter: p.node.voter != nil, Self: p.node == c.life.node,
		}
		if p.alive {
			m.State = "alive"
		}
		all = append(all, m)
	}
	return all
}

// Voters implements controlplane.Cluster.
func (c *clusterView) Voters() []string {
	var ids []string
	for _, v := range c.sim.quorum.voters {
		ids = append(ids, v.id)
	}
	return ids
}

// ClusterID implements controlplane.Cluster.
func (*clusterView) ClusterID() string { return clusterID }

// Apply implements controlplane.Cluster.
func (c *clusterView) Apply(ctx context.Context, cmd *pb.Command) error {
	return c.commit(ctx, cmd)
}

// Barrier implements controlplane.Cluster.
func (c *clusterView) Barrier(ctx context.Context) error { return c.commit(ctx, nil) }

func (c *clusterView) commit(ctx context.Context, cmd *pb.Command) error {
	if c.life.node.voter == nil {
		return errNotLeader
	}
	return c.sim.quorum.commit(ctx, c.life.node.voter, c.life, cmd)
}

// Term implements controlplane.Cluster.
func (c *clusterView) Term() uint64 {
	if c.life.node.voter == nil {
		return 0
	}
	return c.sim.quorum.term(c.life.node.voter)
}

// Quorum implements controlplane.Cluster: none is founded anew here.
func (c *clusterView) Quorum() cluster.Quorum { return cluster.Quorum{} }

// VerifyLeader implements controlplane.Cluster.
func (c *clusterView) VerifyLeader(ctx context.Context) error {
	if c.life.node.voter == nil {
		return errNotLeader
	}
	return c.sim.quorum.verify(ctx, c.life.node.voter, c.life)
}

// TransferLeadership implements controlplane.Cluster.
func (c *clusterView) TransferLeadership(context.Context) error {
	if c.life.node.voter == nil || !c.sim.quorum.handOver(c.life.node.voter) {
		return errNotLeader
	}
	return nil
}

// votersOf tells an agent whom to report to, as node/ does.
type votersOf struct{ *clusterView }

// Voters implements agent.VoterFinder.
func (v votersOf) Voters() []agent.Voter {
	var all []agent.Voter
	for _, m := range v.Members() {
		if m.Voter && m.State == "alive" {
			all = append(all, agent.Voter{NodeID: m.NodeID, Addr: m.RPCAddr})
		}
	}
	return all
}

// leaderOf tells where to forward to, as node/ does.
type leaderOf struct{ *clusterView }

// Leader implements rpc.LeaderFinder.
func (l leaderOf) Leader() (addr string, self, ok bool) {
	now := l.Leadership()
	return now.Addr, now.Self, now.NodeID != "" && now.Addr != ""
}
