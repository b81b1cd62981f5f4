package e2e

import (
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestDrainMovesInstancesAwayAndResumeTakesNewOnes(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	n := c.Nodes()[0]
	drained := c.Nodes()[2]
	before := map[string]rig.Instance{}
	for _, i := range n.Run("--name", "steady", "--count", "6", actor(t), "--", "forever") {
		before[i.InstanceID] = i
	}
	if r := n.CLI("node", "drain", "--timeout", "30s", drained.Name); r.Code != 0 {
		t.Fatalf("drain: %v", r.Err())
	}
	if m := n.Members()[drained.Name]; m.State != "draining" || m.Instances != 0 {
		t.Errorf("after its drain the node is %s with %d instances", m.State, m.Instances)
	}
	for _, i := range waitRunning(t, n, "steady", 6) {
		was := before[i.InstanceID]
		moved := was.NodeName == drained.Name
		switch {
		case i.NodeName == drained.Name:
			t.Errorf("%s is still on the drained node", i.InstanceID)
		case moved && i.Generation != was.Generation+1:
			t.Errorf("%s moved, and its generation went from %d to %d", i.InstanceID, was.Generation, i.Generation)
		case !moved && (i.NodeName != was.NodeName || i.Generation != was.Generation):
			t.Errorf("%s had no reason to go from %s to %s", i.InstanceID, was.NodeName, i.NodeName)
		}
	}
	for _, i := range n.Run("--name", "late", "--count", "4", actor(t), "--", "forever") {
		if i.NodeName == drained.Name {
			t.Errorf("%s was placed on the drained node", i.InstanceID)
		}
	}

	if r := n.CLI("node", "resume", drained.Name); r.Code != 0 {
		t.Fatalf("resume: %v", r.Err())
	}
	mustRunOn(t, n, drained)
}

func TestConstraintsKeepInstancesToLabeledNodes(t *testing.T) {
	t.Parallel()
	c := product.New(t)
	plain, fast := c.Node("plain"), c.Node("fast")
	plain.Start()
	fast.Start("--join", plain.IP, "--label", "disk=ssd")
	c.WaitFormed(2)
	for _, i := range plain.Run("--count", "4", "--constraint", "disk=ssd", actor(t), "--", "forever") {
		if i.NodeName != "fast" {
			t.Errorf("%s runs on %s", i.InstanceID, i.NodeName)
		}
	}
	r := plain.CLI("run", "--constraint", "disk=tape", "--timeout", "5s", actor(t), "--", "forever")
	if e := r.Reported(); r.Code != 1 || e == nil || e.Code != "RESOURCE_EXHAUSTED" {
		t.Errorf("a constraint that no node meets: exit code %d, %s", r.Code, r.Stderr)
	}
}

func TestNodeTakesNoMoreThanItsLimits(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1, "--max-instances", "3", "--max-memory", "256MiB")
	n := c.Any()
	n.Run("--count", "2", "--memory", "64MiB", actor(t), "--", "forever")
	for _, flags := range [][]string{{"--memory", "200MiB"}, {"--count", "2"}} {
		args := append(append([]string{"run", "--timeout", "5s"}, flags...), actor(t), "--", "forever")
		r := n.CLI(args...)
		if e := r.Reported(); r.Code != 1 || e == nil || e.Code != "RESOURCE_EXHAUSTED" {
			t.Errorf("%v: exit code %d, %s", args, r.Code, r.Stderr)
		}
	}
	rig.Wait(t, "the refused ones to leave no trace among the running", 5*time.Second, func() error {
		return rig.Want("the number of instances", len(n.PS()) <= 3, true)
	})
}
