package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// unseenFactor is how many settle times a voter that has not been seen since this node started is
// given to come back: after a power cut, some hosts take minutes.
const unseenFactor = 60

// answerTimeout is how long a connection to a future voter may take.
const answerTimeout = time.Second

// keepVoters makes this node, while it leads, add and remove voters as planVoters says.
func (c *Cluster) keepVoters(ctx context.Context) error {
	look := newMetronome(c.ticking, c.cfg.timing().settle/2)
	defer look.stop()
	for {
		changed := c.Changed()
		if c.Leadership().Self && !c.isLeaving() {
			step := planVoters(c.votersView())
			if err := c.takeStep(step); err != nil && !errors.Is(err, raft.ErrNotLeader) {
				c.cfg.Log.WarnContext(ctx, "the voters could not be changed; trying again", "promote", step.Promote, "demote", step.Demote, "err", err)
			} else if step != (voterChange{}) && err == nil {
				c.announce()
				continue
			}
		}
		select {
		case <-look.C:
			look.next()
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Cluster) isLeaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving
}

func (c *Cluster) takeStep(step voterChange) error {
	switch {
	case step.Promote != "":
		if err := c.answers(step.Promote); err != nil {
			return err
		}
		c.cfg.Log.Info("adding a voter", "peer_id", step.Promote)
		return c.raft().AddVoter(raft.ServerID(step.Promote), raft.ServerAddress(c.addrOf(step.Promote)), 0, enqueueTimeout).Error()
	case step.Demote != "":
		c.cfg.Log.Info("removing a voter", "peer_id", step.Demote)
		return c.raft().RemoveServer(raft.ServerID(step.Demote), 0, enqueueTimeout).Error()
	}
	return nil
}

// answers asks a node itself whether it is there, over both of its ports. Gossip sees the nodes behind
// a cut die one after the other, within seconds: a vote for one that it still takes to be alive, while it
// knows another voter to be dead, can cost the quorum, and no later step could take it back.
func (c *Cluster) answers(nodeID string) error {
	c.mu.Lock()
	m := c.members[nodeID]
	c.mu.Unlock()
	if m == nil {
		return fmt.Errorf("gossip does not know node %s", nodeID)
	}
	addr, err := net.ResolveUDPAddr("udp", m.GossipAddr)
	if err != nil {
		return fmt.Errorf("gossip address of node %s: %w", nodeID, err)
	}
	if _, err := c.gossip.Ping(nodeID, addr); err != nil {
		return fmt.Errorf("ask node %s at %s: %w", nodeID, m.GossipAddr, err)
	}
	conn, err := c.seat.Load().stream.Dial(raft.ServerAddress(m.RPCAddr), answerTimeout)
	if err != nil {
		return fmt.Errorf("reach node %s at %s: %w", nodeID, m.RPCAddr, err)
	}
	return conn.Close()
}

func (c *Cluster) votersView() votersView {
	voters := c.configuredVoters()
	settle := c.cfg.timing().settle
	quorum := c.Quorum()
	c.mu.Lock()
	defer c.mu.Unlock()
	v := votersView{Self: c.cfg.NodeID, Target: c.cfg.Voters}
	for _, id := range voters {
		if c.members[id] == nil { // known only by the log: gossip has not seen it since our start
			v.Nodes = append(v.Nodes, nodeView{ID: id, Voter: true, Settled: time.Since(c.opened) >= unseenFactor*settle})
		}
	}
	for id, m := range c.members {
		v.Nodes = append(v.Nodes, nodeView{
			ID: id, Voter: slices.Contains(voters, id),
			Alive: m.State == stateAlive && !m.meta.GetLeaving(), Left: m.State == stateLeft || m.meta.GetLeaving(),
			// One that has not followed into this quorum yet would refuse its traffic.
			Settled: m.Self || time.Since(m.since) >= settle && (slices.Contains(voters, id) || quorumOf(m.meta) == quorum),
		})
	}
	return v
}

func (c *Cluster) othersVote() bool {
	ids := c.configuredVoters()
	return len(ids) > 1 && contains(ids, c.cfg.NodeID)
}

func contains(ids []string, id string) bool { return slices.Contains(ids, id) }
