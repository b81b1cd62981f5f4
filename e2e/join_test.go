package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestFiveNodesKeepThreeVotersAndReplaceALostOne(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 5)
	waitVoters(t, c, 3)
	voters := c.Any().Status().Voters
	for _, n := range c.Nodes() {
		members := n.Members()
		roles := map[string]int{}
		for name, m := range members {
			roles[m.Role]++
			if voter := m.Role != "agent"; voter != slices.Contains(voters, name) {
				t.Errorf("%s says that %s is %s, and the voters are %v", n.Name, name, m.Role, voters)
			}
			if node := c.Get(name); m.GossipAddr != node.Gossip() || m.RPCAddr != node.RPC() || m.HTTPAddr != node.IP+":7402" {
				t.Errorf("%s says that %s is at %s, %s, %s", n.Name, name, m.GossipAddr, m.RPCAddr, m.HTTPAddr)
			}
		}
		if roles["leader"] != 1 || roles["voter"] != 2 || roles["agent"] != 2 {
			t.Errorf("%s sees the roles %v, want a leader, 2 voters and 2 agents", n.Name, roles)
		}
	}

	leader := c.Leader()
	lost := c.Get(voters[slices.IndexFunc(voters, func(name string) bool { return name != leader.Name })])
	lost.Kill()
	rig.Wait(t, "another node to vote in place of "+lost.Name, 30*time.Second, func() error {
		status, err := leader.TryStatus()
		if err == nil && (len(status.Voters) != 3 || slices.Contains(status.Voters, lost.Name)) {
			err = fmt.Errorf("the voters are %v", status.Voters)
		}
		return err
	})
	if now := c.Leader(); now != leader {
		t.Errorf("the loss of a voter made %s lead in place of %s", now.Name, leader.Name)
	}

	before := leader.Status()
	lost.Restart()
	c.WaitFormed(5)
	waitVoters(t, c, 3)
	rig.Wait(t, "the return to be an event", 10*time.Second, func() error {
		if !slices.ContainsFunc(c.Any().Events(), func(e rig.Event) bool { return e.Type == "node.joined" && e.Name == lost.Name }) {
			return fmt.Errorf("no node.joined of %s", lost.Name)
		}
		return nil
	})
	after := leader.Status()
	if after.Term != before.Term || after.Leader.Name != before.Leader.Name {
		t.Errorf("the former voter's return took the cluster from term %d under %s to term %d under %s",
			before.Term, before.Leader.Name, after.Term, after.Leader.Name)
	}
}

func TestNodesStartedTogetherWithoutJoinAreTwoClustersAndStayTwo(t *testing.T) {
	t.Parallel()
	c := product.New(t)
	a, b := c.Node("a"), c.Node("b")
	a.Start()
	b.Start()
	c.WaitFormed(1)
	idA, idB := a.Status().ClusterID, b.Status().ClusterID
	if idA == idB || idA == "" {
		t.Fatalf("the clusters of a and b have the ids %q and %q", idA, idB)
	}

	b.Kill()
	b.Start("--join", a.IP)
	rig.Wait(t, "b to say that a belongs to another cluster", 20*time.Second, func() error {
		if log := b.Log(); !strings.Contains(log, idA) || !strings.Contains(log, idB) {
			return fmt.Errorf("its log does not name %s and %s", idA, idB)
		}
		return nil
	})
	if members := a.Members(); len(members) != 1 {
		t.Errorf("a has the members %v", members)
	}
	if id := a.Status().ClusterID; id != idA {
		t.Errorf("a's cluster was %s and is %s", idA, id)
	}
}

func TestJoinGoesOnUntilTheAddressComesAlive(t *testing.T) {
	t.Parallel()
	c := product.New(t)
	n1, n2 := c.Node("n1"), c.Node("n2")
	n2.Start("--join", n1.IP)
	rig.Wait(t, "n2 to log what it tries", 20*time.Second, func() error {
		if !strings.Contains(n2.Log(), n1.IP) {
			return fmt.Errorf("no word of %s in its log", n1.IP)
		}
		return nil
	})
	if status, err := n2.TryStatus(); err == nil && status.Leader.Name != "" {
		t.Fatalf("n2 was told to join and leads a cluster of its own: %+v", status)
	}
	n1.Start()
	c.WaitFormed(2)
}

func TestNameThatIsTakenIsRefused(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1)
	second := c.Node("second")
	second.Start("--join", c.Get("n1").IP, "--name", "n1")
	if code := second.WaitExit(30 * time.Second); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{`"n1"`, c.Get("n1").IP, "--name"} {
		if log := second.Log(); !strings.Contains(strings.ReplaceAll(log, `\"`, `"`), want) {
			t.Errorf("the refusal does not mention %s:\n%s", want, log)
		}
	}
	if alive := c.Get("n1").Status().Members.Alive; alive != 1 {
		t.Errorf("%d members are alive, want 1", alive)
	}
}

func TestBootstrapExpectFoundsOneClusterFromOneCommandLine(t *testing.T) {
	t.Parallel()
	c := product.New(t, "--bootstrap-expect", "3", "--cluster-name", "paris")
	nodes := []*rig.Node{c.Node("n1"), c.Node("n2"), c.Node("n3")}
	join := fmt.Sprintf("%s,%s,%s", nodes[0].IP, nodes[1].IP, nodes[2].IP)
	nodes[0].Start("--join", join)
	nodes[1].Start("--join", join)
	rig.Wait(t, "n1 and n2 to see each other", 20*time.Second, func() error {
		members, err := nodes[0].TryMembers()
		if err == nil && len(members) != 2 {
			err = fmt.Errorf("n1 sees %d", len(members))
		}
		return err
	})
	if status, err := nodes[0].TryStatus(); err == nil && status.Leader.Name != "" {
		t.Fatalf("two of three founded a cluster: %+v", status)
	}
	nodes[2].Start("--join", join)
	first := c.WaitFormed(3)
	waitVoters(t, c, 3)

	// The same command line serves the restart, and growth.
	nodes[1].Kill()
	nodes[1].Restart()
	c.Node("n4").Start("--join", join)
	if again := c.WaitFormed(4); again.ClusterID != first.ClusterID || again.ClusterName != "paris" {
		t.Errorf("the cluster's id was %s and is %s; it is called %q", first.ClusterID, again.ClusterID, again.ClusterName)
	}
}

// waitVoters waits until the cluster has that many voters and all of them live.
func waitVoters(t *testing.T, c *rig.Cluster, want int) {
	t.Helper()
	rig.Wait(t, fmt.Sprintf("%d voters", want), 20*time.Second, func() error {
		status, err := c.Any().TryStatus()
		if err != nil {
			return err
		}
		if len(status.Voters) != want {
			return fmt.Errorf("the voters are %v", status.Voters)
		}
		for _, name := range status.Voters {
			if !c.Get(name).Runs() {
				return fmt.Errorf("%s is a voter and does not run", name)
			}
		}
		return nil
	})
}
