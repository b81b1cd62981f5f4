package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// Joining is tried again after a wait that doubles between these, with jitter.
	joinAgainSoon = 500 * time.Millisecond
	joinAgainLate = 15 * time.Second
)

// joinForever dials the seeds until this node is in company, and after that whoever of the known
// nodes is missing: memberlist itself forgets the dead after a while, so a cluster that was split
// for longer would never find itself again.
//
// It ends only where a seed refuses this node for a reason that time does not mend.
func (c *Cluster) joinForever(ctx context.Context) error {
	wait := &backoff.ExponentialBackOff{InitialInterval: joinAgainSoon, MaxInterval: joinAgainLate, Multiplier: 1.6, RandomizationFactor: 0.3}
	wait.Reset()
	alone := true
	if !c.waitNamed(ctx) {
		return nil
	}
	for {
		// First of all: who dials without saying where it belongs is taken for a newcomer, by any cluster.
		if err := c.tellClusterID(); err != nil {
			c.cfg.Log.DebugContext(ctx, "gossip has not passed on yet where this node belongs", "err", err)
		} else if err := c.dial(c.missing()); err != nil {
			return err
		}
		c.rememberPeers()
		if was := alone; was != c.isAlone() {
			alone = !was
			wait.Reset()
		}
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// waitNamed waits until the cluster that this node founded alone has its id, or ctx ends. A founder that
// was killed before it had named its cluster elects itself and does so; if it joined another one first, it
// would take that one's name and lead a second cluster under it.
func (c *Cluster) waitNamed(ctx context.Context) bool {
	for {
		changed := c.Changed()
		if voters := c.configuredVoters(); c.ClusterID() != "" || len(voters) != 1 || voters[0] != c.cfg.NodeID {
			return true
		}
		look := time.NewTimer(100 * time.Millisecond) // not every change of the log is told
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			look.Stop()
			return false
		}
		look.Stop()
	}
}

// missing returns the gossip addresses worth dialing: the seeds while this node is alone, and the
// known nodes that are not there and did not leave.
func (c *Cluster) missing() []string {
	known := c.peers.addresses()
	c.mu.Lock()
	defer c.mu.Unlock()
	var targets []string
	there := map[string]bool{}
	for id, m := range c.members {
		if m.State == stateAlive {
			there[m.GossipAddr] = true
		}
		if m.State == stateDead {
			targets = append(targets, m.GossipAddr)
		}
		if m.State != stateDead {
			delete(known, id)
		}
	}
	for _, addr := range known {
		targets = append(targets, addr)
	}
	if c.aliveLocked() < 2 || len(targets) > 0 {
		targets = append(targets, c.cfg.Join...)
	}
	slices.Sort(targets)
	return slices.DeleteFunc(slices.Compact(targets), func(addr string) bool { return there[addr] })
}

func (c *Cluster) dial(targets []string) error {
	for _, addr := range targets {
		alone := c.isAlone()
		c.refused(nil)
		_, err := c.gossip.Join([]string{addr})
		switch {
		case err == nil && alone:
			c.cfg.Log.Info("joined", "addr", addr)
		case err == nil:
		case alone && slices.Contains(c.cfg.Join, addr) && c.wasRefused(err):
			return c.lastRefusal()
		case alone:
			c.cfg.Log.Warn("could not join; trying again", "addr", addr, "err", cmp.Or(errors.Unwrap(err), err)) // of memberlist's list of one, which takes five lines
		default:
			c.cfg.Log.Debug("a missing node is not back yet", "addr", addr, "err", err)
		}
	}
	return nil
}

// wasRefused says whether a join failed because one side does not want the other. memberlist passes
// the reason on as text only.
func (c *Cluster) wasRefused(err error) bool {
	refusal := c.lastRefusal()
	return refusal != nil && strings.Contains(err.Error(), refusal.Error())
}

func (c *Cluster) lastRefusal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal
}

func (c *Cluster) isAlone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aliveLocked() < 2
}

// rememberPeers keeps the known nodes on disk, without those that left.
func (c *Cluster) rememberPeers() {
	c.mu.Lock()
	now := map[string]string{}
	var left []string
	for id, m := range c.members {
		switch {
		case m.Self:
		case m.State == stateLeft:
			left = append(left, id)
		default:
			now[id] = m.GossipAddr
		}
	}
	c.mu.Unlock()
	if err := c.peers.update(now, left); err != nil {
		c.cfg.Log.Warn("the known nodes could not be kept", "err", err)
	}
}
