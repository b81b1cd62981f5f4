package main

import (
	"fmt"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// hostLost measures how long a host's instances are away that is killed, as nodes are by default.
func hostLost(b *bench) {
	took := b.loseHosts(b.formed(5))
	report(b, "kill -9 of one of 5 hosts to its 20 instances running elsewhere, median", quantile(took, 0.5), 5*time.Second, "")
	report(b, fmt.Sprintf("the same, worst of %d", b.rounds), quantile(took, 1), 8*time.Second, "")
}

// hostLostLocal measures the same where nodes notice a death sooner.
func hostLostLocal(b *bench) {
	took := b.loseHosts(b.formed(5, "--gossip-profile", "local"))
	report(b, "the same with --gossip-profile local, median", quantile(took, 0.5), 2*time.Second, "")
	report(b, fmt.Sprintf("the same, worst of %d", b.rounds), quantile(took, 1), 0, "")
}

// loseHosts measures from kill -9 of one of the nodes, each other time the leader, until all that ran on
// it runs elsewhere.
func (b *bench) loseHosts(c *rig.Cluster) []time.Duration {
	small := b.small()
	b.warm(c, small)
	var took []time.Duration
	for round := range b.rounds {
		name := fmt.Sprint("moving-", round)
		started := c.Any().Run("--name", name, "--count", "100", "--restart", "always", "--memory", "1MiB", "--timeout", "60s", small, "--", "forever")
		lost := c.Leader()
		if round%2 == 0 {
			lost = c.Followers()[0]
		}
		began := time.Now()
		lost.Kill()
		rig.Wait(b, "all to run elsewhere", patience, func() error {
			listed, err := c.Any().TryPS("--name", name)
			if err != nil {
				return err
			}
			for _, i := range listed {
				if i.Status != "running" || i.NodeName == lost.Name {
					return fmt.Errorf("%s is %s on %s", i.InstanceID, i.Status, i.NodeName)
				}
			}
			return rig.Want("the number that runs", len(listed), len(started))
		})
		took = append(took, time.Since(began))
		lost.Restart()
		c.WaitFormed(5)
		b.threeVoters(c)
		b.stopAll(c, name)
	}
	return took
}

// powerCycle measures from the start of three nodes that were all killed with 1,000 instances on them
// until all of those run again.
func powerCycle(b *bench) {
	c := b.formed(3)
	small := b.small()
	b.warm(c, small)
	c.Any().Run("--name", "kept", "--count", "1000", "--restart", "always", "--memory", "1MiB", "--timeout", "60s", small, "--", "forever")
	var took []time.Duration
	for range 3 {
		for _, n := range c.Nodes() {
			n.Kill()
		}
		began := time.Now()
		for _, n := range c.Nodes() {
			n.Restart()
		}
		rig.Wait(b, "all to run again", patience, func() error {
			status, err := c.Any().TryStatus()
			if err != nil {
				return err
			}
			if status.Instances["running"] < 1000 {
				return fmt.Errorf("%v", status.Instances)
			}
			listed, err := c.Any().TryPS("--name", "kept")
			if err != nil {
				return err
			}
			for _, i := range listed {
				if i.Status != "running" {
					return fmt.Errorf("%s is %s", i.InstanceID, i.Status)
				}
			}
			return rig.Want("the number that runs", len(listed), 1000)
		})
		took = append(took, time.Since(began))
	}
	report(b, "power cycle of 3 nodes with 1,000 small instances to all running, median of 3", quantile(took, 0.5), 10*time.Second, "")
}

func (b *bench) stopAll(c *rig.Cluster, name string) {
	if r := c.Any().CLI("stop", "--timeout", "60s", name); r.Code != 0 {
		b.Fatal(r.Err())
	}
}
