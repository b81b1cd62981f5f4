//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// How long a leader whose disk hangs may keep the others from leading: 5 s until it cuts its Raft traffic
// (diskHang in cluster/config.go), about 1 s for an election, and the rest for a busy machine.
const replacedWithin = 10 * time.Second

// How long the disk hangs on once another node leads: time for a leader that should not be one to do harm.
const hangsOn = 5 * time.Second

// What runs goes on while the disk hangs, and a new start would need the disk, too.
func TestWatchdogIsFedWhileTheDiskHangs(t *testing.T) {
	if err := rig.CanHangDisks(t); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	systemd := listenAsSystemd(t)
	n := product.New(t).Node("n1")
	n.Env = systemd.env()
	n.Start()
	systemd.wait("READY=1")
	disk, err := n.HangDisk()
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Answer()
	// The journal's write, and Raft's.
	for _, words := range [][]string{{"run", "--timeout", "60s", actor(t), "--", "forever"}, {"node", "drain", "--timeout", "60s", "n1"}} {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := n.Command(ctx, words...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cancel()
			_ = cmd.Wait() // it was cut off
		}()
	}
	rig.Wait(t, "a write to hang", 20*time.Second, func() error {
		return rig.Want("whether n1 waits for its disk", n.WaitsForDisk(), true)
	})
	systemd.untilNow()
	for range 3 {
		systemd.wait("WATCHDOG=1")
	}
	if !n.WaitsForDisk() {
		t.Error("the disk answered meanwhile")
	}
}

// Alone, for it asserts timing.
func TestLeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	if err := rig.CanHangDisks(t); err != nil {
		t.Skip(err)
	}
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	for _, n := range c.Nodes() {
		mustRunOn(t, c.Any(), n)
	}
	c.Any().Run("--name", "steady", "--count", "6", actor(t), "--", "tick", fmt.Sprint(tick.Milliseconds()))
	instances := map[string]rig.Instance{}
	for _, i := range c.Any().PS() {
		instances[i.InstanceID] = i
	}
	first, others := c.Leader(), c.Followers()

	disk, err := first.HangDisk()
	if err != nil {
		t.Fatal(err)
	}
	before := others[0].Status()
	if before.Leader.Name != first.Name || first.WaitsForDisk() {
		t.Fatalf("before anything is written, %s leads instead of %s, or writes", before.Leader.Name, first.Name)
	}
	// Nothing hangs before something is written: this is written, and changes nothing.
	written := make(chan error, 1)
	resume := others[0].Command(t.Context(), "node", "resume", "--timeout", "60s", others[1].Name)
	go func() {
		if said, err := resume.CombinedOutput(); err != nil {
			written <- fmt.Errorf("%w: %s", err, said)
		}
		close(written)
	}()
	rig.Wait(t, "a write of the leader to hang", 5*time.Second, func() error {
		return rig.Want("whether "+first.Name+" waits for its disk", first.WaitsForDisk(), true)
	})
	hung := time.Now()

	var next rig.Status
	replaced := rig.Wait(t, "another leader", replacedWithin, func() error {
		for _, n := range others {
			var err error
			if next, err = n.TryStatus(); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if next.Leader.Name == "" || next.Leader.Name == first.Name {
				return fmt.Errorf("%s says that %q leads", n.Name, next.Leader.Name)
			}
		}
		return nil
	})
	// To be asked for metrics takes no disk.
	waitShown(t, first, map[string]float64{"wasmatrix_raft_log_hangs_total": 1, "wasmatrix_raft_is_leader": 0})
	for _, n := range c.Nodes() { // the one whose disk hangs knows better than its Raft, too
		for _, i := range n.Run("--name", "meanwhile-"+n.Name, "--timeout", "20s", actor(t), "--", "forever") {
			instances[i.InstanceID] = i
		}
	}
	accepted := time.Since(hung)
	if err := within(20*time.Second, written); err != nil {
		t.Errorf("the command whose write hung was not done by the next leader: %v", err)
	}
	for _, n := range others {
		listedBy(t, n, instances)
	}
	rig.Hold(t, "that all runs on under the next leader", hangsOn, func() error {
		for _, n := range others {
			status, err := n.TryStatus()
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if err := rig.Want("the leader in the eyes of "+n.Name, status.Leader, next.Leader); err != nil {
				return err
			}
			listed, err := n.TryPS("-a")
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if err := sameInstances(listed, instances); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
		}
		return rig.Want("whether "+first.Name+" waits for its disk", first.WaitsForDisk(), true)
	})

	disk.Answer()
	hang := time.Since(hung)
	var after rig.Status
	healed := rig.Wait(t, "all to be one cluster again", 30*time.Second, func() error {
		var err error
		after, err = oneCluster(c)
		return err
	})
	t.Logf("another leader after %s, starts accepted after %s; the disk hung for %s, one cluster again after %s",
		replaced.Round(time.Millisecond), accepted.Round(time.Millisecond), hang.Round(time.Millisecond), healed.Round(time.Millisecond))
	if next.Term <= before.Term || after.Term != next.Term || after.Leader != next.Leader {
		t.Errorf("%s led in term %d, then %s in %d, and when the disk answered %s in %d",
			first.Name, before.Term, next.Leader.Name, next.Term, after.Leader.Name, after.Term)
	}
	for _, n := range c.Nodes() {
		listedBy(t, n, instances)
	}
	for id, i := range instances {
		if i.Name == "steady" {
			tickedAllTheWhile(t, first, id, hung, hung.Add(hang))
		}
	}
	mustRunOn(t, first, others[0])
	mustRunOn(t, others[0], first)
}

// listedBy waits until a node lists exactly these instances, as they were started.
func listedBy(t *testing.T, n *rig.Node, started map[string]rig.Instance) {
	t.Helper()
	rig.Wait(t, "what runs to be listed by "+n.Name, 20*time.Second, func() error {
		listed, err := n.TryPS("-a")
		if err != nil {
			return err
		}
		return sameInstances(listed, started)
	})
}

// within returns what comes out of a channel, or an error when nothing does for that long.
func within(deadline time.Duration, done <-chan error) error {
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("no answer after %s", deadline)
	}
}
