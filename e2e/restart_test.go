package e2e

import (
	"fmt"
	"slices"
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

// TestReturnedVoterReportsToTheVotersOfToday: a node that was away when its vote was taken has the old configuration, and
// would tell what happens on it to the voters of that only.
func TestReturnedVoterReportsToTheVotersOfToday(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 5)
	waitVoters(t, c, 3)
	before := c.Any().Status().Voters
	var away *rig.Node
	for _, name := range before {
		if away = c.Get(name); away != c.Leader() {
			break
		}
	}
	away.Kill()
	newest := ""
	rig.Wait(t, "another node to have its vote", 30*time.Second, func() error {
		status, err := c.Any().TryStatus()
		if err != nil {
			return err
		}
		for _, name := range status.Voters {
			if !slices.Contains(before, name) {
				newest = name
			}
		}
		if newest == "" || slices.Contains(status.Voters, away.Name) {
			return fmt.Errorf("%v vote", status.Voters)
		}
		return nil
	})
	away.Restart()
	c.WaitFormed(5)
	if r := c.Any().CLI("operator", "raft", "transfer", "--to", newest); r.Code != 0 {
		t.Fatal(r.Err())
	}
	ids := byID(c.Any().Run("--name", "brief", "--count", "5", "--restart", "never", "--timeout", "20s", actor(t), "--", "sleep", "3000"))
	rig.Wait(t, "the leader to hear of all ends", 20*time.Second, func() error {
		status, err := c.Any().TryStatus()
		if err != nil {
			return err
		}
		if status.Leader.Name != newest {
			return fmt.Errorf("%s leads, and is to be %s", status.Leader.Name, newest)
		}
		listed, err := c.Any().TryPS("-a", "--name", "brief")
		if err != nil {
			return err
		}
		for id, i := range byID(listed) {
			if i.Status != "stopped" {
				return fmt.Errorf("%s is %s on %s, and %s has just returned", id, i.Status, i.NodeName, away.Name)
			}
		}
		return rig.Want("the number listed", len(listed), len(ids))
	})
}
