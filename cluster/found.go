package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
)

// found makes a cluster where that is this node's part, and gives it its id.
//
// Alone: no --join, no --bootstrap-expect, no state. Together: of the first N nodes that see each
// other, all unfounded, the one with the lowest id founds alone and the others are added to it; two
// nodes that disagree on who sees whom could else found twice with different configurations.
func (c *Cluster) found(ctx context.Context) error {
	for {
		changed := c.Changed()
		switch {
		case c.isFounded():
		case c.cfg.BootstrapExpect == 0 && len(c.cfg.Join) == 0, c.isFirstOf(c.cfg.BootstrapExpect):
			if err := c.bootstrap(); err != nil {
				return err
			}
		}
		if err := c.nameCluster(ctx); err != nil {
			c.cfg.Log.WarnContext(ctx, "the cluster has no id yet; trying again", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Cluster) isFounded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.founded || c.clusterID != ""
}

// isFirstOf says whether this node is to found for the n nodes that see each other.
func (c *Cluster) isFirstOf(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 0 {
		return false
	}
	var ids []string
	for id, m := range c.members {
		switch {
		case m.State != stateAlive:
		case !m.meta.GetUnfounded(): // there is a cluster: it will add this node
			return false
		case int(m.meta.GetBootstrapExpect()) == n:
			ids = append(ids, id)
		}
	}
	return len(ids) >= n && slices.Min(ids) == c.cfg.NodeID
}

func (c *Cluster) bootstrap() error {
	err := c.raft().BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(c.cfg.NodeID), Address: raft.ServerAddress(c.ownAddr()), Suffrage: raft.Voter,
	}}}).Error()
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	c.mu.Lock()
	c.founded = true
	c.mu.Unlock()
	c.cfg.Log.Info("founded a cluster")
	return nil
}

// nameCluster has a leader whose log has no cluster id write one. What people call the cluster comes before it: with the id the
// founding is done.
func (c *Cluster) nameCluster(ctx context.Context) error {
	if c.fsm.ClusterID() != "" || !c.Leadership().Self {
		return nil
	}
	if err := c.Barrier(ctx); err != nil || c.fsm.ClusterID() != "" {
		return err
	}
	id := c.ClusterID() // known from before, if the log was lost
	if id == "" {
		id = uuid.NewString()
	}
	if name := c.cfg.ClusterName; name != "" && name != raftfsm.DefaultClusterName {
		if err := c.Apply(ctx, &pb.Command{Op: &pb.Command_PutSetting{PutSetting: &pb.PutSetting{Key: raftfsm.SettingClusterName, Value: name}}}); err != nil {
			return err
		}
	}
	return c.Apply(ctx, &pb.Command{Op: &pb.Command_FoundCluster{FoundCluster: &pb.FoundCluster{ClusterId: id}}})
}
