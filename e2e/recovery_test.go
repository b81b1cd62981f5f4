package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestKilledNodeRunsAgainWhatItRan(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3, "--node-loss-grace", "5m")
	waitVoters(t, c, 3)
	kept := c.Any().Run("--name", "kept", "--count", "6", "--restart", "always", actor(t), "--", "forever")
	once := c.Any().Run("--name", "once", "--count", "3", "--restart", "never", actor(t), "--", "forever")
	ended := c.Any().Run("--name", "ended", "--count", "3", "--restart", "always", actor(t), "--", "forever")
	c.Any().CLI("stop", "ended")
	killed := c.Followers()[0]
	killed.Kill()
	r := c.Leader().CLI("stop", onNode(t, kept, killed).InstanceID) // while it is away
	if r.Code != 0 {
		t.Fatal(r.Err())
	}
	killed.Restart()
	back := time.Now()
	c.WaitFormed(3)
	want := func(i rig.Instance) (status string, restarts int) {
		switch {
		case i.Name == "ended", i.InstanceID == onNode(t, kept, killed).InstanceID:
			return "stopped", 0
		case i.NodeName != killed.Name:
			return "running", 0
		case i.Name == "once":
			return "crashed", 0
		}
		return "running", 1
	}
	check := func() error {
		for _, n := range c.Nodes() {
			listed, err := n.TryPS("-a")
			if err != nil {
				return err
			}
			if err := rig.Want("the number of instances", len(listed), len(kept)+len(once)+len(ended)); err != nil {
				return err
			}
			now := byID(listed)
			for _, i := range append(append(append([]rig.Instance{}, kept...), once...), ended...) {
				status, restarts := want(i)
				if is := now[i.InstanceID]; is.Status != status || is.Restarts != restarts || status == "running" && is.NodeName != i.NodeName {
					return fmt.Errorf("%s: %s (%s) of %s is %s on %s after %d restarts (%s), want %s after %d",
						n.Name, i.InstanceID, i.Name, i.NodeName, is.Status, is.NodeName, is.Restarts, is.LastError, status, restarts)
				}
			}
		}
		return nil
	}
	rig.Wait(t, "all to be as before", 30*time.Second, check)
	t.Logf("all was as before %s after the restart", time.Since(back).Round(10*time.Millisecond))
	rig.Hold(t, "that it stays so", 3*time.Second, check)
	for _, i := range once {
		if is := c.Any().Inspect(i.InstanceID); i.NodeName == killed.Name && !strings.Contains(is.LastError, "its node went down") {
			t.Errorf("%s crashed because of %q", i.InstanceID, is.LastError)
		}
	}
}

func TestAllNodesLosePowerAndOneComesLate(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	kept := byID(c.Any().Run("--name", "kept", "--count", "9", "--restart", "always", actor(t), "--", "forever"))
	ended := byID(c.Any().Run("--name", "ended", "--count", "3", "--restart", "always", actor(t), "--", "forever"))
	c.Any().CLI("stop", "ended")
	nodes := c.Nodes()
	for _, n := range nodes {
		n.Kill()
	}
	check := func(up []*rig.Node) error {
		for _, n := range up {
			listed, err := n.TryPS("-a")
			if err != nil {
				return err
			}
			now := byID(listed)
			if err := rig.Want("the number of rows", len(now), len(listed)); err != nil {
				return err
			}
			for id, was := range kept {
				is, known := now[id]
				there := was.NodeName != nodes[0].Name || len(up) == 3
				if there && (is.Status != "running" || is.NodeName != was.NodeName) || !there && known {
					return fmt.Errorf("%s: %s, which ran on %s, is %q on %q: %s", n.Name, id, was.NodeName, is.Status, is.NodeName, is.LastError)
				}
			}
			for id := range ended {
				if is, known := now[id]; known && is.Status != "stopped" {
					return fmt.Errorf("%s: %s was stopped and is %s on %s", n.Name, id, is.Status, is.NodeName)
				}
			}
		}
		return nil
	}
	on := time.Now()
	nodes[2].Restart()
	nodes[1].Restart()
	rig.Wait(t, "what ran on the two to run", 30*time.Second, func() error { return check(nodes[1:]) })
	t.Logf("what ran on two of three nodes ran again after %s", time.Since(on).Round(10*time.Millisecond))
	rig.Hold(t, "that it stays so while one node is away", 8*time.Second, func() error { return check(nodes[1:]) })
	nodes[0].Restart()
	rig.Wait(t, "everything to run", 30*time.Second, func() error { return check(nodes) })
	rig.Hold(t, "that everything stays so", 3*time.Second, func() error { return check(nodes) })
}

// onNode returns the first of several instances that is on a node.
func onNode(t *testing.T, all []rig.Instance, n *rig.Node) rig.Instance {
	t.Helper()
	for _, i := range all {
		if i.NodeName == n.Name {
			return i
		}
	}
	t.Fatalf("none of %d instances is on %s", len(all), n.Name)
	return rig.Instance{}
}
