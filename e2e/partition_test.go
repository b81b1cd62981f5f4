//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

const (
	// How long a split goes on once each side has seen all of the other die, which is some 5 s after the
	// cut, and up to 15 on a busy machine. memberlist gossips to the dead for 30 s (GossipToTheDeadTime of
	// its defaults), so what heals a shorter split may be gossip; after this it can only be the nodes' own
	// dialing.
	forgotten = 40 * time.Second
	// How often the nodes are asked in that time: seldom, for it is other tests' time too.
	lookEvery = 5 * time.Second
	// How often the guests print: what they print shows that they ran all the while.
	tick = 500 * time.Millisecond
)

func TestClusterSplitForLongerThanGossipRemembersFindsItselfAgain(t *testing.T) {
	t.Parallel()
	network, err := rig.NewNetwork(t, 5)
	if err != nil {
		t.Skip(err)
	}
	c := product.FormOn(t, network.Hosts())
	waitVoters(t, c, 3)
	for _, n := range c.Nodes() {
		mustRunOn(t, c.Any(), n)
	}
	c.Any().Run("--name", "steady", "--count", "10", actor(t), "--", "tick", fmt.Sprint(tick.Milliseconds()))
	before := c.Any().Status()
	few, many := minorityThatLeads(t, c)
	t.Logf("%s leads; %s are cut off", before.Leader.Name, names(few))
	instances := map[string]rig.Instance{}
	for _, i := range c.Any().PS() {
		instances[i.InstanceID] = i
	}

	cut := time.Now()
	network.Cut(few, many)
	elected := rig.Wait(t, "the majority to have a leader", 30*time.Second, func() error {
		for _, n := range many {
			status, err := n.TryStatus()
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if slices.Contains(few, c.Get(status.Leader.Name)) || status.Recovering {
				return fmt.Errorf("%s says that %s leads, recovering %t", n.Name, status.Leader.Name, status.Recovering)
			}
		}
		return nil
	})
	dead := elected + rig.Wait(t, "each side to see the other dead", time.Minute, func() error {
		return eachSeesDead(few, many)
	})
	stayed := map[string]rig.Instance{}
	rig.Wait(t, "what ran on the minority to run on the majority", 30*time.Second, func() error {
		listed, err := many[0].TryPS("-a")
		if err != nil {
			return err
		}
		return takenOver(listed, instances, few, stayed)
	})
	instances = byID(many[0].PS("-a"))
	for _, n := range many {
		for _, i := range n.Run("--name", "meanwhile-"+n.Name, "--timeout", "20s", actor(t), "--", "forever") {
			if slices.Contains(few, c.Get(i.NodeName)) {
				t.Errorf("a start through %s was said to be done on %s, which is cut off", n.Name, i.NodeName)
			}
			instances[i.InstanceID] = i
		}
	}
	for _, n := range few {
		refusesWithoutLeader(t, n, "ps")
		refusesWithoutLeader(t, n, "run", "--name", "refused", actor(t), "--", "forever")
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for time.Since(cut) < dead+forgotten {
		<-look.C
		if err := eachSeesDead(few, many); err != nil {
			t.Fatalf("%s after the cut: %v", time.Since(cut).Round(time.Millisecond), err)
		}
	}

	network.Heal()
	split := time.Since(cut)
	var after rig.Status
	healed := rig.Wait(t, "all to be one cluster again", 90*time.Second, func() error {
		var err error
		after, err = oneCluster(c)
		return err
	})
	t.Logf("the majority had a leader after %s, each side saw the other dead after %s; split for %s, one cluster again after %s",
		elected.Round(time.Millisecond), dead.Round(time.Millisecond), split.Round(time.Millisecond), healed.Round(time.Millisecond))
	if after.ClusterID != before.ClusterID || after.Term <= before.Term {
		t.Errorf("cluster %s in term %d became cluster %s in term %d", before.ClusterID, before.Term, after.ClusterID, after.Term)
	}
	waitVoters(t, c, 3)

	for _, n := range c.Nodes() {
		rig.Wait(t, "what ran on either side to be listed by "+n.Name, 20*time.Second, func() error {
			listed, err := n.TryPS("-a")
			if err != nil {
				return err
			}
			return sameInstances(listed, instances)
		})
	}
	// A node dials the node that has the instance itself, so this also shows whom each knows.
	for _, n := range c.Nodes() {
		for id, i := range stayed {
			if i.Name == "steady" {
				tickedAllTheWhile(t, n, id, cut, cut.Add(split))
			}
		}
	}
	for _, n := range few {
		mustRunOn(t, n, many[0])
		mustRunOn(t, many[0], n)
	}
	if running := c.Running(); len(running) != 5 {
		t.Errorf("%s still run, want all", names(running))
	}
}

// minorityThatLeads splits the nodes in two: the leader with a node that has no vote, and the others,
// who are more and have most of the votes.
//
// Of the nodes without a vote it is the first in line for one, by its id: there is a second in which
// gossip sees the lost leader dead and that node not yet, and its vote would cost the majority its quorum.
func minorityThatLeads(t *testing.T, c *rig.Cluster) (few, many []*rig.Node) {
	t.Helper()
	var next rig.Member
	for _, m := range c.Any().Members() {
		if m.Role == "agent" && (next.NodeID == "" || m.NodeID < next.NodeID) {
			next = m
		}
	}
	leader := c.Leader()
	for _, n := range c.Nodes() {
		if n == leader || n.Name == next.Name {
			few = append(few, n)
		} else {
			many = append(many, n)
		}
	}
	if len(few) != 2 || len(many) != 3 {
		t.Fatalf("split into %s and %s", names(few), names(many))
	}
	return few, many
}

// eachSeesDead returns nil where the nodes of each group see all of their own alive and all of the
// others dead.
func eachSeesDead(group, other []*rig.Node) error {
	for _, side := range [][2][]*rig.Node{{group, other}, {other, group}} {
		for _, n := range side[0] {
			members, err := n.TryMembers()
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			for i, state := range []string{"alive", "dead"} {
				for _, m := range side[i] {
					if got := members[m.Name].State; got != state {
						return fmt.Errorf("%s says that %s is %q, want %s", n.Name, m.Name, got, state)
					}
				}
			}
		}
	}
	return nil
}

// refusesWithoutLeader checks that a command through a node that knows no leader says so, in time.
func refusesWithoutLeader(t *testing.T, n *rig.Node, command string, args ...string) {
	t.Helper()
	const timeout, slack = 3 * time.Second, 5 * time.Second // slack for a command on a busy machine
	began := time.Now()
	r := n.CLI(slices.Concat([]string{command, "--timeout", timeout.String()}, args)...)
	if e := r.Reported(); r.Code != 1 || e == nil || e.Code != "NO_LEADER" {
		t.Errorf("%s through %s, which is cut off: exit code %d, %s%s", command, n.Name, r.Code, r.Stdout, r.Stderr)
	}
	if took := time.Since(began); took > timeout+slack {
		t.Errorf("%s through %s with a timeout of %s took %s", command, n.Name, timeout, took)
	}
}

// oneCluster returns the status that all nodes agree on, with each of them alive and one leader.
func oneCluster(c *rig.Cluster) (rig.Status, error) {
	var agreed rig.Status
	for _, n := range c.Nodes() {
		members, err := n.TryMembers()
		if err != nil {
			return agreed, fmt.Errorf("%s: %w", n.Name, err)
		}
		var leaders []string
		for _, m := range members {
			if m.State != "alive" {
				return agreed, fmt.Errorf("%s says that %s is %s", n.Name, m.Name, m.State)
			}
			if m.Role == "leader" {
				leaders = append(leaders, m.Name)
			}
		}
		status, err := n.TryStatus()
		switch {
		case err != nil:
			return agreed, fmt.Errorf("%s: %w", n.Name, err)
		case len(members) != len(c.Nodes()):
			return agreed, fmt.Errorf("%s sees %d members", n.Name, len(members))
		case len(leaders) != 1 || leaders[0] != status.Leader.Name:
			return agreed, fmt.Errorf("%s says that %v lead, and %s", n.Name, leaders, status.Leader.Name)
		case status.Recovering || len(status.MissingNodes) > 0:
			return agreed, fmt.Errorf("%s says that the leader is recovering %t, without %v", n.Name, status.Recovering, status.MissingNodes)
		case agreed.Term != 0 && (status.Term != agreed.Term || status.Leader != agreed.Leader):
			return agreed, fmt.Errorf("%s is in term %d under %s, and another in %d under %s",
				n.Name, status.Term, status.Leader.Name, agreed.Term, agreed.Leader.Name)
		}
		agreed = status
	}
	return agreed, nil
}

// takenOver says what is missing for all that ran on the minority to run on the majority, in the next
// generation, and for the rest to have stayed, which it notes.
func takenOver(listed []rig.Instance, before map[string]rig.Instance, few []*rig.Node, stayed map[string]rig.Instance) error {
	cutOff := func(node string) bool {
		return slices.ContainsFunc(few, func(n *rig.Node) bool { return n.Name == node })
	}
	for _, i := range listed {
		was := before[i.InstanceID]
		switch moved := cutOff(was.NodeName); {
		case i.Status != "running" || cutOff(i.NodeName):
			return fmt.Errorf("%s is %s on %q: %s", i.InstanceID, i.Status, i.NodeName, i.LastError)
		case moved && i.Generation != was.Generation+1, !moved && i.Generation != was.Generation:
			return fmt.Errorf("%s was in generation %d on %s and is in %d on %s", i.InstanceID, was.Generation, was.NodeName, i.Generation, i.NodeName)
		case !moved:
			stayed[i.InstanceID] = i
		}
	}
	return rig.Want("the number listed", len(listed), len(before))
}

// sameInstances returns nil where what is listed is what was started: each once, on its node, in its
// first life.
func sameInstances(listed []rig.Instance, started map[string]rig.Instance) error {
	seen := map[string]bool{}
	for _, i := range listed {
		was, known := started[i.InstanceID]
		switch {
		case !known:
			return fmt.Errorf("%s (%s) was never acknowledged and is %s on %s", i.InstanceID, i.Name, i.Status, i.NodeName)
		case seen[i.InstanceID]:
			return fmt.Errorf("%s is listed twice", i.InstanceID)
		case i.Status != "running" || i.Restarts != 0:
			return fmt.Errorf("%s on %s is %s after %d restarts: %s", i.InstanceID, i.NodeName, i.Status, i.Restarts, i.LastError)
		case i.NodeID != was.NodeID || i.Generation != was.Generation:
			return fmt.Errorf("%s was in generation %d on %s and is in %d on %s", i.InstanceID, was.Generation, was.NodeName, i.Generation, i.NodeName)
		case i.StartedAt == nil || was.StartedAt == nil || !i.StartedAt.Equal(*was.StartedAt):
			return fmt.Errorf("%s on %s started at %v and says %v", i.InstanceID, i.NodeName, was.StartedAt, i.StartedAt)
		}
		seen[i.InstanceID] = true
	}
	return rig.Want("the number listed", len(seen), len(started))
}

// tickedAllTheWhile checks that an instance went on printing, without a gap, in that time.
func tickedAllTheWhile(t *testing.T, via *rig.Node, id string, from, to time.Time) {
	t.Helper()
	count, printed := 0, 0
	for _, entry := range via.Logs(id) {
		count++
		if want := fmt.Sprintf("tick %d", count); strings.TrimSpace(entry.Line) != want {
			t.Errorf("seen from %s, line %d of %s is %q, want %q", via.Name, count, id, entry.Line, want)
			return
		}
		if entry.Time.After(from) && entry.Time.Before(to) {
			printed++
		}
	}
	// Half, for a machine on which ticks come late.
	if want := int(to.Sub(from) / tick / 2); printed < want {
		t.Errorf("seen from %s, %s printed %d lines during the split of %s, want %d at least", via.Name, id, printed, to.Sub(from), want)
	}
}

func names(nodes []*rig.Node) []string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	return all
}
