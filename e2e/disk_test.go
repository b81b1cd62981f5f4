//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// How long a leader whose disk hangs may keep the others from leading: 5 s until it cuts its Raft traffic
// (diskHang in cluster/config.go), about 1 s for an election, and the rest for a busy machine.
const replacedWithin = 10 * time.Second

// How long the disk hangs on once another node leads: time for a leader that should not be one to do harm.
const hangsOn = 5 * time.Second

// Alone, for it asserts timing.
func TestLeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	mustTrace(t)
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

	disk, err := hangDisk(t, first.PID())
	if err != nil {
		t.Fatal(err)
	}
	before := others[0].Status()
	if before.Leader.Name != first.Name || syncs(first.PID()) {
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
		return rig.Want("whether "+first.Name+" waits for its disk", syncs(first.PID()), true)
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
		return rig.Want("whether "+first.Name+" waits for its disk", syncs(first.PID()), true)
	})

	disk.answer()
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

// disk is the disk of one process, which does not answer.
type disk struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// errTrace is what strace says of itself, where it ended before it held the process.
var errTrace = errors.New("strace")

// hangDisk holds a process back wherever it waits for the disk to have what it wrote: strace stops the
// thread as it enters the system call, for longer than the test lasts.
func hangDisk(t *testing.T, pid int) (*disk, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-o", os.DevNull, "-p", strconv.Itoa(pid),
		"-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter="+fmt.Sprint((10*time.Minute).Microseconds()))
	// On this one it detaches, and what it held back goes on.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("%w: %w", errTrace, err)
	}
	d := &disk{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(d.ended)
		_ = cmd.Wait() // what it said counts
	}()
	t.Cleanup(d.answer)
	var failed error
	rig.Wait(t, fmt.Sprintf("strace to hold process %d", pid), 10*time.Second, func() error {
		select {
		case <-d.ended:
			failed = fmt.Errorf("%w: %s", errTrace, bytes.TrimSpace(said.Bytes()))
			return nil
		default:
			return traced(pid, cmd.Process.Pid)
		}
	})
	return d, failed
}

// answer lets the disk answer again.
func (d *disk) answer() {
	d.cancel()
	<-d.ended
}

// mustTrace skips the test where there is no strace, or where it may not hold processes.
func mustTrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("a disk is made to hang with strace, which is not installed: ", err)
	}
	trial := exec.CommandContext(t.Context(), "sleep", "60")
	if err := trial.Start(); err != nil {
		t.Fatal(err)
	}
	disk, err := hangDisk(t, trial.Process.Pid)
	switch {
	case err == nil:
		disk.answer()
	case strings.Contains(err.Error(), "ptrace"):
		t.Skip("a disk is made to hang with strace, which may not hold processes here: ", err)
	default:
		t.Fatal(err)
	}
	if err := trial.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = trial.Wait() // it was killed
}

// traced returns nil where that tracer holds each thread of a process.
func traced(pid, tracer int) error {
	all, err := ofThreads(pid, "status")
	if err != nil {
		return err
	}
	for _, status := range all {
		if !strings.Contains(status, fmt.Sprintf("\nTracerPid:\t%d\n", tracer)) {
			return fmt.Errorf("process %d has a thread that is not traced", pid)
		}
	}
	return nil
}

// syncs says whether a thread of a process is in one of the system calls that wait for the disk.
func syncs(pid int) bool {
	all, _ := ofThreads(pid, "syscall") // none where the process is gone, and that waits for nothing
	return slices.ContainsFunc(all, func(call string) bool {
		number, _, _ := strings.Cut(call, " ")
		return number == strconv.Itoa(syscall.SYS_FDATASYNC) || number == strconv.Itoa(syscall.SYS_FSYNC)
	})
}

// ofThreads returns what a file of /proc says of each thread of a process.
func ofThreads(pid int, file string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", file))
	if err != nil || len(paths) == 0 {
		return nil, errors.Join(err, fmt.Errorf("process %d has no threads that /proc knows of", pid))
	}
	var all []string
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that just ended
		}
		if err != nil {
			return nil, err
		}
		all = append(all, string(raw))
	}
	return all, nil
}
