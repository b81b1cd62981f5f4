package e2e

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// from is the revision that is upgraded from.
var from = flag.String("upgrade.from", "HEAD~1", "the revision whose binary the cluster is upgraded from")

// TestClusterIsUpgradedAndTakenBackNodeByNode runs two binaries in one cluster, in each role: a node of the new one joins
// a cluster of the old, one node after the other is killed, or leaves, and goes on with the new binary on what the old one left
// on disk; then two go back.
func TestClusterIsUpgradedAndTakenBackNodeByNode(t *testing.T) {
	t.Parallel()
	old, err := rig.BuildRevision(*from, t.TempDir())
	if err != nil {
		t.Skipf("nothing to upgrade from: %v", err)
	}
	c := old.Form(t, 3)
	waitVoters(t, c, 3)
	kept := byID(c.Any().Run("--name", "kept", "--count", "6", "--restart", "always", actor(t), "--", "forever"))
	stopped := c.Any().Run("--name", "stopped", "--restart", "always", actor(t), "--", "forever")[0].InstanceID
	if r := c.Any().CLI("stop", stopped); r.Code != 0 {
		t.Fatal(r.Err())
	}

	newcomer := c.Node("n4")
	newcomer.Install(product)
	newcomer.Start("--join", c.Nodes()[0].IP)
	c.WaitFormed(4)
	serves(t, c, kept, stopped, "a new node among old ones")

	for at, n := range c.Nodes()[:3] {
		n.Install(product)
		takeDown(t, n, at == 1)
		n.Restart()
		c.WaitFormed(4)
		serves(t, c, kept, stopped, n.Name+" was upgraded")
	}
	leader := c.Leader()
	for at, n := range []*rig.Node{leader, c.Followers()[0]} {
		n.Install(old)
		takeDown(t, n, at == 1)
		n.Restart()
		c.WaitFormed(4)
		serves(t, c, kept, stopped, n.Name+" was taken back")
	}
}

func takeDown(t *testing.T, n *rig.Node, inOrder bool) {
	t.Helper()
	if !inOrder {
		n.Kill()
		return
	}
	if code := n.Leave(40 * time.Second); code != 0 {
		t.Errorf("%s left with exit code %d", n.Name, code)
	}
}

// serves checks that a cluster runs what it ran, has not started again what was stopped, and takes orders through each node
// for each node.
func serves(t *testing.T, c *rig.Cluster, kept map[string]rig.Instance, stopped, when string) {
	t.Helper()
	for _, n := range c.Nodes() {
		rig.Wait(t, when+": all to run, seen from "+n.Name, 60*time.Second, func() error {
			listed, err := n.TryPS("--name", "kept")
			if err != nil {
				return err
			}
			running := 0
			for id, i := range byID(listed) {
				if _, ours := kept[id]; ours && i.Status == "running" {
					running++
				}
			}
			if len(listed) != len(kept) || running != len(kept) {
				return fmt.Errorf("%d are listed and %d of %d run", len(listed), running, len(kept))
			}
			return nil
		})
		if listed, err := n.TryPS("--name", "stopped"); err != nil || len(listed) > 0 {
			t.Errorf("%s: what was stopped (%s) is %v, seen from %s (%v)", when, stopped, listed, n.Name, err)
		}
	}
	for at, n := range c.Nodes() {
		mustRunOn(t, n, c.Nodes()[(at+1)%len(c.Nodes())])
	}
}
