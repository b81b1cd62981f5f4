package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// recovered is what operator recover prints.
type recovered struct {
	Name       string   `json:"name"`
	Generation uint64   `json:"quorum_generation"`
	Term       uint64   `json:"term"`
	LastIndex  uint64   `json:"last_index"`
	GivenUp    []string `json:"given_up"`
	Survivors  []string `json:"survivors"`
	Done       bool     `json:"done"`
}

// raftServer is one row of operator raft ls.
type raftServer struct {
	Name       string  `json:"name"`
	NodeID     string  `json:"node_id"`
	Role       string  `json:"role"`
	State      string  `json:"state"`
	LastIndex  *uint64 `json:"last_index"`
	Generation *uint64 `json:"quorum_generation"`
}

// loseQuorum kills all voters but one, the leader among them, and returns the one and the dead.
func loseQuorum(t *testing.T, c *rig.Cluster) (left *rig.Node, dead []*rig.Node) {
	t.Helper()
	leader := c.Leader()
	voters := c.Any().Status().Voters
	for _, n := range c.Nodes() {
		if slices.Contains(voters, n.Name) && n != leader && left == nil {
			left = n
		}
	}
	for _, n := range c.Nodes() {
		if slices.Contains(voters, n.Name) && n != left {
			n.Kill()
			dead = append(dead, n)
		}
	}
	return left, dead
}

// recoverOn founds a new quorum as a person would: asks what would happen, and then does it. Refused
// while gossip holds the dead for alive.
func recoverOn(t *testing.T, n *rig.Node) recovered {
	t.Helper()
	rig.Wait(t, "a new quorum to be allowed", time.Minute, func() error {
		r := n.CLI("operator", "recover")
		if e := r.Reported(); r.Code == 0 || e == nil || !strings.Contains(e.Message, "nothing was changed") {
			return fmt.Errorf("exit code %d, %s", r.Code, r.Stderr)
		}
		return nil
	})
	var did recovered
	n.JSON(&did, "operator", "recover", "--yes")
	return did
}

func raftServers(t *testing.T, n *rig.Node) map[string]raftServer {
	t.Helper()
	var list []raftServer
	n.JSON(&list, "operator", "raft", "ls")
	all := map[string]raftServer{}
	for _, s := range list {
		all[s.Name] = s
	}
	return all
}

// untouched says what happened to instances that were on nodes which are still there, if anything did.
func untouched(now, before map[string]rig.Instance, gone []*rig.Node) error {
	for id, was := range before {
		if slices.ContainsFunc(gone, func(n *rig.Node) bool { return n.Name == was.NodeName }) {
			continue
		}
		is := now[id]
		if is.Status != "running" || is.NodeName != was.NodeName || is.Restarts != was.Restarts || is.Generation != was.Generation ||
			is.StartedAt == nil || !is.StartedAt.Equal(*was.StartedAt) {
			return fmt.Errorf("instance %s was %+v and is %+v", id, was, is)
		}
	}
	return nil
}

func TestNewQuorumIsFoundedAndNoInstanceIsInterrupted(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 5)
	waitVoters(t, c, 3)
	id := c.Any().Status().ClusterID
	kept := byID(c.Any().Run("--name", "kept", "--count", "15", "--restart", "always", actor(t), "--", "forever"))
	once := byID(c.Any().Run("--name", "once", "--count", "5", "--restart", "never", actor(t), "--", "forever"))
	if e := c.Any().CLI("operator", "recover", "--yes").Reported(); e == nil || !strings.Contains(e.Message, "leads the cluster in term") {
		t.Fatalf("with a leader, it says %v", e)
	}
	left, dead := loseQuorum(t, c)
	for _, n := range dead {
		if err := os.RemoveAll(n.DataDir); err != nil {
			t.Fatal(err)
		}
	}
	if ls := raftServers(t, left); len(ls) != 3 || ls[left.Name].LastIndex == nil {
		t.Errorf("without a leader, the quorum is %+v", ls)
	}
	did := recoverOn(t, left)
	if !did.Done || did.Name != left.Name || did.Generation != 1 || len(did.GivenUp) != 2 || len(did.Survivors) != 3 || did.LastIndex == 0 {
		t.Errorf("recover says %+v", did)
	}
	started := left.Run("--name", "later", actor(t), "--", "forever")
	rig.Wait(t, "all to run on the survivors", 2*movedWithin, func() error {
		listed, err := left.TryPS("-a")
		if err != nil {
			return err
		}
		now := byID(listed)
		if err := untouched(now, kept, dead); err != nil {
			t.Fatal(err)
		}
		if err := untouched(now, once, dead); err != nil {
			t.Fatal(err)
		}
		for id, was := range kept {
			is := now[id]
			if is.Status != "running" || dead[0].Name == is.NodeName || dead[1].Name == is.NodeName {
				return fmt.Errorf("instance %s was on %s and is %s on %q: %s", id, was.NodeName, is.Status, is.NodeName, is.LastError)
			}
		}
		for id, was := range once {
			if is := now[id]; is.Status != "running" && is.Status != "lost" {
				return fmt.Errorf("instance %s, whose policy is never, was on %s and is %s", id, was.NodeName, is.Status)
			}
		}
		return rig.Want("what was started later", now[started[0].InstanceID].Status, "running")
	})
	waitVoters(t, c, 3)
	c.WaitFormed(3)
	if now := c.Any().Status(); now.ClusterID != id || now.Term < did.Term {
		t.Errorf("the cluster is %+v, and was %s", now, id)
	}
	for name, s := range raftServers(t, c.Any()) {
		if s.State != "alive" || s.Generation == nil || *s.Generation != 1 || slices.Contains(did.GivenUp, name) {
			t.Errorf("%s votes: %+v", name, s)
		}
	}
}

// Two of three old voters are a majority of the old quorum, and what ran on them runs elsewhere by now.
func TestOldVotersThatComeBackWithTheirDataDoNoHarm(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	kept := byID(c.Any().Run("--name", "kept", "--count", "9", "--restart", "always", actor(t), "--", "forever"))
	left, dead := loseQuorum(t, c)
	did := recoverOn(t, left)
	rig.Wait(t, "all to run on the survivor", 2*movedWithin, func() error {
		listed, err := left.TryPS("-a")
		if err != nil {
			return err
		}
		for id, i := range byID(listed) {
			if i.Status != "running" || i.NodeName != left.Name {
				return fmt.Errorf("instance %s is %s on %q: %s", id, i.Status, i.NodeName, i.LastError)
			}
		}
		return nil
	})
	before := byID(left.PS("-a"))
	if err := untouched(before, kept, dead); err != nil {
		t.Fatal(err)
	}
	for _, n := range dead {
		n.Restart()
	}
	c.WaitFormed(3)
	rig.Hold(t, "that their return changes nothing", 8*time.Second, func() error {
		for _, n := range c.Nodes() {
			listed, err := n.TryPS("-a")
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if err := sameFacts(byID(listed), before); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			status, err := n.TryStatus()
			if err != nil {
				return err
			}
			if status.Leader.Name != left.Name || status.Term != did.Term {
				return fmt.Errorf("%s says that %s leads in term %d, and %s did in %d", n.Name, status.Leader.Name, status.Term, left.Name, did.Term)
			}
		}
		return nil
	})
	waitVoters(t, c, 3)
	for _, n := range dead {
		running, err := n.Metric(`wasmatrix_instances{status="running"}`)
		if err != nil || running != 0 {
			t.Errorf("%v instances run on %s, %v", running, n.Name, err)
		}
	}
}

// Where no voter survives, an agent that never had the metadata founds; the others register again.
func TestAgentFoundsANewQuorumWhereNoVoterSurvives(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 5)
	waitVoters(t, c, 3)
	saved := filepath.Join(t.TempDir(), "snapshot")
	kept := byID(c.Any().Run("--name", "kept", "--count", "10", "--restart", "always", actor(t), "--", "forever"))
	c.Any().JSON(&struct{}{}, "operator", "snapshot", "save", saved)
	left, dead := loseQuorum(t, c)
	left.Kill()
	dead = append(dead, left)
	agents := c.Running()
	did := recoverOn(t, agents[0])
	if did.LastIndex != 0 || len(did.GivenUp) != 3 {
		t.Errorf("recover says %+v", did)
	}
	c.WaitFormed(2)
	rig.Wait(t, "starts on both agents", 20*time.Second, func() error {
		started, err := agents[1].TryRun("--name", "later", "--count", "2", actor(t), "--", "forever")
		if err != nil {
			return err
		}
		if started[0].NodeName == started[1].NodeName {
			return fmt.Errorf("both are on %s", started[0].NodeName)
		}
		return nil
	})
	if err := untouched(byID(agents[1].PS("-a")), kept, dead); err != nil {
		t.Fatal(err)
	}
	var restored struct {
		Added []string `json:"added"`
	}
	agents[0].JSON(&restored, "operator", "snapshot", "restore", saved)
	slices.Sort(restored.Added)
	if len(restored.Added) != 3 {
		t.Errorf("the snapshot added %v", restored.Added)
	}
	if err := untouched(byID(agents[1].PS("-a")), kept, dead); err != nil {
		t.Fatal(err)
	}
}

func TestOperatorMovesLeadershipAndVotesAndKeepsSnapshots(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	leader, heir := c.Leader(), c.Followers()[0]
	kept := byID(c.Any().Run("--name", "kept", "--count", "3", "--restart", "always", actor(t), "--", "forever"))
	var now struct {
		Name string `json:"name"`
		Term uint64 `json:"term"`
	}
	for _, asked := range []*rig.Node{heir, leader, c.Followers()[1]} { // the heir, the old leader, and somebody else
		to := heir
		if c.Leader() == heir {
			to = leader
		}
		asked.JSON(&now, "operator", "raft", "transfer", "--to", to.Name)
		if now.Name != to.Name || now.Term == 0 {
			t.Fatalf("handed over to %s, and %+v leads", to.Name, now)
		}
	}
	before := c.Leader()
	heir.JSON(&now, "operator", "raft", "transfer")
	if now.Name == before.Name {
		t.Errorf("%s still leads", now.Name)
	}
	leader = c.Leader()
	ls := raftServers(t, heir)
	if len(ls) != 3 || ls[leader.Name].Role != "leader" {
		t.Errorf("the quorum is %+v, and %s leads", ls, leader.Name)
	}
	for ref, says := range map[string]string{leader.Name: "raft transfer", c.Followers()[0].Name: "is alive", "nobody": "no node has the name"} {
		if e := heir.CLI("operator", "raft", "remove", ref).Reported(); e == nil || !strings.Contains(e.Message, says) {
			t.Errorf("remove %s: %v, want a refusal that says %q", ref, e, says)
		}
	}

	saved := filepath.Join(t.TempDir(), "snapshot")
	c.Any().JSON(&struct{}{}, "operator", "snapshot", "save", saved)
	var restored struct {
		Added  []string `json:"added"`
		Raised []string `json:"raised"`
	}
	c.Any().JSON(&restored, "operator", "snapshot", "restore", saved)
	if len(restored.Added)+len(restored.Raised) != 0 {
		t.Errorf("restoring what is known says %+v", restored)
	}
	other := product.Form(t, 1)
	if e := other.Any().CLI("operator", "snapshot", "restore", saved).Reported(); e == nil || !strings.Contains(e.Message, "--force") {
		t.Errorf("a snapshot of another cluster: %v", e)
	}

	gone := c.Followers()[0]
	gone.Kill()
	// By id, and by force: gossip has not noticed yet.
	leader.JSON(&struct{}{}, "operator", "raft", "remove", "--force", ls[gone.Name].NodeID)
	if ls := raftServers(t, leader); ls[gone.Name].NodeID != "" || ls[leader.Name].Role != "leader" {
		t.Errorf("the quorum is %+v", ls)
	}
	if err := untouched(byID(leader.PS()), kept, []*rig.Node{gone}); err != nil {
		t.Error(err)
	}
}
