package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// movedWithin is how long the instances of a lost host may take to run elsewhere: gossip notices a death
// in 2.4 to 3.4 s, and the grace is 2 s.
const movedWithin = 20 * time.Second

func TestInstancesOfALostNodeRunElsewhereOnce(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	for _, lost := range []*rig.Node{c.Followers()[0], c.Leader()} {
		t.Run("leader="+fmt.Sprint(lost == c.Leader()), func(t *testing.T) { loseAndReturn(t, c, lost) })
	}
}

func loseAndReturn(t *testing.T, c *rig.Cluster, lost *rig.Node) {
	t.Helper()
	for _, i := range c.Any().PS() {
		c.Any().CLI("stop", i.InstanceID)
	}
	kept := byID(c.Any().Run("--name", "kept-"+lost.Name, "--count", "9", "--restart", "always", actor(t), "--", "forever"))
	once := byID(c.Any().Run("--name", "once-"+lost.Name, "--count", "3", "--restart", "never", actor(t), "--", "forever"))
	for _, all := range []map[string]rig.Instance{kept, once, byID(c.Any().PS())} {
		for id, i := range all {
			if i.Status == "running" && i.Durability != "witnessed" {
				t.Errorf("%s on %s is acknowledged and its durability is %q", id, i.NodeName, i.Durability)
			}
		}
	}
	lost.Kill()
	killed := time.Now()
	asked := c.Any()
	rig.Wait(t, "all to run elsewhere", movedWithin, func() error {
		listed, err := asked.TryPS("-a", "--name", "kept-"+lost.Name)
		if err != nil {
			return err
		}
		return movedOrKept(byID(listed), kept, lost.Name)
	})
	t.Logf("all run elsewhere %s after the kill", time.Since(killed).Round(10*time.Millisecond))
	for id, i := range once {
		want := "running"
		if i.NodeName == lost.Name {
			want = "lost"
		}
		if now := asked.Inspect(id); now.Status != want || now.Generation != i.Generation && want == "running" {
			t.Errorf("%s, whose policy is never, was on %s and is %q in generation %d, want %q", id, i.NodeName, now.Status, now.Generation, want)
		}
	}
	before := byID(asked.PS("-a"))
	maps.DeleteFunc(before, func(_ string, i rig.Instance) bool { return i.Status == "stopped" }) // of a life that may be over
	lost.Restart()
	c.WaitFormed(3)
	rig.Hold(t, "that its return changes nothing", 5*time.Second, func() error {
		for _, n := range c.Nodes() {
			listed, err := n.TryPS("-a")
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if err := sameFacts(byID(listed), before); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
		}
		return nil
	})
}

// A node that was only frozen goes on where it was when it comes back. What was taken over meanwhile must
// end there.
func TestFrozenNodeStopsWhatWasTakenOver(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	frozen := c.Followers()[0]
	kept := byID(c.Any().Run("--name", "kept", "--count", "6", "--restart", "always", actor(t), "--", "forever"))
	frozen.Pause()
	asked := c.Leader()
	rig.Wait(t, "all to run elsewhere", 2*movedWithin, func() error {
		listed, err := asked.TryPS("-a", "--name", "kept")
		if err != nil {
			return err
		}
		return movedOrKept(byID(listed), kept, frozen.Name)
	})
	before := byID(asked.PS("-a"))
	frozen.Continue()
	thawed := time.Now()
	rig.Wait(t, "the frozen node to have nothing left that runs", 15*time.Second, func() error {
		running, err := frozen.Metric(`wasmatrix_instances{status="running"}`)
		if err != nil {
			return err
		}
		return rig.Want("what runs on "+frozen.Name, running, 0)
	})
	t.Logf("it stopped them %s after it went on", time.Since(thawed).Round(10*time.Millisecond))
	c.WaitFormed(3)
	rig.Hold(t, "that nothing else changes", 3*time.Second, func() error {
		listed, err := frozen.TryPS("-a")
		if err != nil {
			return err
		}
		return sameFacts(byID(listed), before)
	})
}

// A stop holds from the moment it is acknowledged, also of what nobody can reach just then, and under the
// next leader.
func TestStopOnAnUnreachableNodeTakesEffectAtItsReturn(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3, "--node-loss-grace", "5m")
	waitVoters(t, c, 3)
	away := c.Followers()[0]
	kept := c.Any().Run("--name", "kept", "--count", "3", "--restart", "always", actor(t), "--", "forever")
	there := slices.IndexFunc(kept, func(i rig.Instance) bool { return i.NodeName == away.Name })
	away.Pause()
	leader := c.Leader()
	rig.Wait(t, "the frozen node to be seen dead", time.Minute, func() error {
		members, err := leader.TryMembers()
		if err != nil {
			return err
		}
		return rig.Want("its state", members[away.Name].State, "dead")
	})
	r := leader.CLI("stop", kept[there].InstanceID)
	if r.Code != 0 || !strings.Contains(r.Stderr, away.Name+" is not reachable") {
		t.Fatalf("exit code %d, stderr %q; want 0 and a word about %s", r.Code, r.Stderr, away.Name)
	}
	leader.Kill() // two of three are gone: one that is frozen goes on, or nobody leads
	away.Continue()
	rest := slices.DeleteFunc(slices.Clone(c.Followers()), func(n *rig.Node) bool { return n == away })
	rig.Wait(t, "the stop to take effect", 30*time.Second, func() error {
		for _, n := range append(rest, away) {
			listed, err := n.TryPS("-a")
			if err != nil {
				return err
			}
			if i := byID(listed)[kept[there].InstanceID]; i.Status != "stopped" {
				return fmt.Errorf("%s lists it as %s on %s", n.Name, i.Status, i.NodeName)
			}
		}
		running, err := away.Metric(`wasmatrix_instances{status="running"}`)
		if err != nil {
			return err
		}
		return rig.Want("what runs on "+away.Name, running, 0)
	})
}

func byID(listed []rig.Instance) map[string]rig.Instance {
	all := map[string]rig.Instance{}
	for _, i := range listed {
		all[i.InstanceID] = i
	}
	return all
}

// sameFacts says what changed between two lists, if anything did.
func sameFacts(now, before map[string]rig.Instance) error {
	for id, was := range before {
		is, ok := now[id]
		if !ok || is.Status != was.Status || is.Generation != was.Generation || is.NodeName != was.NodeName || is.Restarts != was.Restarts {
			return fmt.Errorf("instance %s was %s on %s in generation %d, and is %s on %s in %d",
				id, was.Status, was.NodeName, was.Generation, is.Status, is.NodeName, is.Generation)
		}
	}
	for id, is := range now {
		if _, known := before[id]; !known && is.Status != "stopped" {
			return fmt.Errorf("instance %s appeared: %s on %s", id, is.Status, is.NodeName)
		}
	}
	return nil
}

// movedOrKept says what is wrong, if anything: those of the lost node must run elsewhere in the next
// generation, and the others as they did.
func movedOrKept(now, before map[string]rig.Instance, lost string) error {
	if len(now) != len(before) {
		return fmt.Errorf("%d instances, want %d", len(now), len(before))
	}
	for id, was := range before {
		is, ok := now[id]
		switch {
		case !ok:
			return fmt.Errorf("instance %s is not listed", id)
		case is.Status != "running" || is.NodeName == lost:
			return fmt.Errorf("instance %s is %s on %q: %s", id, is.Status, is.NodeName, is.LastError)
		case was.NodeName == lost && is.Generation != was.Generation+1:
			return fmt.Errorf("instance %s moved and is of generation %d, after %d", id, is.Generation, was.Generation)
		case was.NodeName != lost && (is.Generation != was.Generation || is.Restarts != was.Restarts || is.NodeName != was.NodeName):
			return fmt.Errorf("instance %s was not on the lost node, and changed from %+v to %+v", id, was, is)
		}
	}
	return nil
}
