package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestNodesRestartInTurnAndNoInstanceEnds(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	before := c.Any().Status()
	ids := map[string]bool{}
	for _, i := range c.Any().Run("--count", "6", "--name", "steady", actor(t), "--", "forever") {
		ids[i.InstanceID] = true
	}
	for _, n := range c.Nodes() {
		id := n.Members()[n.Name].NodeID
		if code := n.Leave(40 * time.Second); code != 0 {
			t.Fatalf("%s left with exit code %d", n.Name, code)
		}
		waitRunning(t, c.Any(), "steady", 6)
		n.Restart()
		if again := c.WaitFormed(3); again.ClusterID != before.ClusterID {
			t.Fatalf("the cluster's id was %s and is %s", before.ClusterID, again.ClusterID)
		}
		if now := n.Members()[n.Name].NodeID; now != id {
			t.Errorf("the id of %s was %s and is %s", n.Name, id, now)
		}
	}
	for _, i := range waitRunning(t, c.Any(), "steady", 6) {
		if !ids[i.InstanceID] {
			t.Errorf("%s was never started", i.InstanceID)
		}
		if i.Restarts != 0 {
			t.Errorf("%s restarted %d times", i.InstanceID, i.Restarts)
		}
	}
}

func TestNodeReturnsWithAnotherAddress(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	moved := c.Followers()[0]
	moved.Kill()
	moved.Move(c.Address(99))
	moved.Start("--join", c.Leader().IP)
	back := rig.Wait(t, "all to know the new address", 40*time.Second, func() error {
		for _, n := range c.Nodes() {
			members, err := n.TryMembers()
			if err != nil {
				return err
			}
			if got := members[moved.Name]; got.RPCAddr != moved.RPC() || got.State != "alive" {
				return fmt.Errorf("%s says that it is %s at %s", n.Name, got.State, got.RPCAddr)
			}
		}
		return nil
	})
	t.Logf("back after %s", back.Round(time.Millisecond))
	c.WaitFormed(3)
	mustRunOn(t, c.Any(), moved)
}

func TestWholeClusterReturnsWithNewAddresses(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	before := c.Any().Status()
	for _, n := range c.Nodes() {
		n.Kill()
	}
	for i, n := range c.Nodes() {
		n.Move(c.Address(111 + i))
	}
	for _, n := range c.Nodes() {
		n.Start("--join", c.Address(111))
	}
	after := c.WaitFormed(3)
	if after.ClusterID != before.ClusterID {
		t.Errorf("the cluster's id was %s and is %s", before.ClusterID, after.ClusterID)
	}
	if after.Term <= before.Term {
		t.Errorf("the term was %d and is %d", before.Term, after.Term)
	}
	for _, n := range c.Nodes() {
		mustRunOn(t, c.Any(), n)
	}
}

// mustRunOn starts instances until one is on that node.
func mustRunOn(t *testing.T, via, on *rig.Node) {
	t.Helper()
	name := "probe-" + on.Name
	rig.Wait(t, "an instance on "+on.Name, 20*time.Second, func() error {
		started, err := via.TryRun("--name", name, "--count", "3", actor(t), "--", "forever")
		if err != nil {
			return err
		}
		for _, i := range started {
			if i.NodeName == on.Name && i.Status == "running" {
				return nil
			}
		}
		return fmt.Errorf("none of %d", len(started))
	})
}

// waitRunning waits until exactly that many instances of that name run on nodes that run.
func waitRunning(t *testing.T, via *rig.Node, name string, want int) []rig.Instance {
	t.Helper()
	var listed []rig.Instance
	rig.Wait(t, fmt.Sprintf("%d running instances of %s", want, name), 20*time.Second, func() error {
		var err error
		if listed, err = via.TryPS("--name", name); err != nil {
			return err
		}
		for _, i := range listed {
			if i.Status != "running" {
				return fmt.Errorf("%s is %s on %s: %s", i.InstanceID, i.Status, i.NodeName, i.LastError)
			}
		}
		return rig.Want("their number", len(listed), want)
	})
	return listed
}
