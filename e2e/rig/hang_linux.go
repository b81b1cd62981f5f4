package rig

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
	"time"
)

// errTrace is what strace says of itself, where it ended before it held the process.
var errTrace = errors.New("strace")

// HungDisk is the disk of one process, which does not answer.
type HungDisk struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// HangDisk holds the node's process back wherever it waits for the disk to have what it wrote: strace
// stops the thread as it enters the system call, for longer than any test lasts.
func (n *Node) HangDisk() (*HungDisk, error) {
	n.t.Helper()
	return hangDisk(n.t, n.PID())
}

// WaitsForDisk says whether a thread of the node's process is in one of the system calls that wait for
// the disk.
func (n *Node) WaitsForDisk() bool {
	all, _ := ofThreads(n.PID(), "syscall") // none where the process is gone, and that waits for nothing
	return slices.ContainsFunc(all, func(call string) bool {
		number, _, _ := strings.Cut(call, " ")
		return number == strconv.Itoa(syscall.SYS_FDATASYNC) || number == strconv.Itoa(syscall.SYS_FSYNC)
	})
}

// CanHangDisks returns nil where disks can be made to hang, or says what that takes.
func CanHangDisks(t T) error {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		return fmt.Errorf("a disk is made to hang with strace, which is not installed: %w", err)
	}
	return onTrial(t, func(pid int) error {
		disk, err := hangDisk(t, pid)
		switch {
		case err == nil:
			disk.Answer()
		case strings.Contains(err.Error(), "ptrace"):
			return fmt.Errorf("a disk is made to hang with strace, which may not hold processes here: %w", err)
		default:
			t.Fatal(err)
		}
		return nil
	})
}

// onTrial tries something on a process that has nothing to do.
func onTrial(t T, try func(pid int) error) error {
	t.Helper()
	trial := exec.Command("sleep", "60")
	trial.SysProcAttr = attributes()
	if err := trial.Start(); err != nil {
		t.Fatal(err)
	}
	tried := try(trial.Process.Pid)
	if err := trial.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = trial.Wait() // it was killed
	return tried
}

func hangDisk(t T, pid int) (*HungDisk, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-o", os.DevNull, "-p", strconv.Itoa(pid),
		"-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter="+fmt.Sprint((time.Hour).Microseconds()))
	// On this one it detaches, and what it held back goes on.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("%w: %w", errTrace, err)
	}
	d := &HungDisk{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(d.ended)
		_ = cmd.Wait() // what it said counts
	}()
	t.Cleanup(d.Answer)
	var failed error
	Wait(t, fmt.Sprintf("strace to hold process %d", pid), 10*time.Second, func() error {
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

// Answer lets the disk answer again. One of a process that has ended does no harm.
func (d *HungDisk) Answer() {
	d.cancel()
	<-d.ended
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
