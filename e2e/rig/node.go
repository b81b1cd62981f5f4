package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Host is where a node runs, and the commands that ask it.
type Host struct {
	IP      string   // where it is empty, the next address of the cluster's subnet
	DataDir string   // where it is empty, a directory of the cluster's
	enter   []string // what comes before a command line to run it there; nothing for this machine itself
}

// Node is one node of a cluster: an address, a data directory, and a process when it runs.
type Node struct {
	Name    string
	IP      string
	DataDir string
	Env     []string // beside this process's own

	cluster *Cluster
	product *Product // another one than the cluster's, or nil
	t       T
	enter   []string // the host's
	logPath string
	flags   []string // of the last start

	// mu guards what the process's end is told to.
	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts the node's process with these flags beside those of the cluster. It does not wait
// for anything.
func (n *Node) Start(flags ...string) {
	n.t.Helper()
	if n.Runs() {
		n.t.Fatalf("%s runs already", n.Name)
	}
	n.flags = flags
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	args := slices.Concat([]string{"agent", "--name", n.Name, "--bind", n.IP, "--data-dir", n.DataDir}, n.cluster.flags, flags)
	cmd := n.there(context.Background(), n.installed().Node, args)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = slices.Concat(cmd.Env, []string{"GORACE=halt_on_error=1"}, n.Env)
	if err := cmd.Start(); err != nil {
		n.t.Fatalf("start %s: %v", n.Name, err)
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.exited = cmd, exited
	n.mu.Unlock()
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit code is asked for where it matters
	}()
}

// Install has the node run another product from its next start on, and commands to it be that product's.
func (n *Node) Install(p Product) { n.product = &p }

func (n *Node) installed() Product {
	if n.product != nil {
		return *n.product
	}
	return n.cluster.product
}

// Restart starts the node again as it was last started.
func (n *Node) Restart() {
	n.t.Helper()
	n.Start(n.flags...)
}

// Runs says whether the node's process runs.
func (n *Node) Runs() bool {
	_, exited := n.process()
	if exited == nil {
		return false
	}
	select {
	case <-exited:
		return false
	default:
		return true
	}
}

// PID returns the id of the node's process.
func (n *Node) PID() int {
	cmd, _ := n.process()
	if cmd == nil {
		return 0
	}
	return cmd.Process.Pid
}

// Kill ends the process as a power cut would, and waits until it is gone.
func (n *Node) Kill() {
	if !n.Runs() {
		return
	}
	_, exited := n.process()
	n.Signal(syscall.SIGKILL)
	<-exited
}

// Pause stops the process in its tracks, and Continue lets it go on.
func (n *Node) Pause() { n.Signal(syscall.SIGSTOP) }

// Continue lets a paused process go on.
func (n *Node) Continue() { n.Signal(syscall.SIGCONT) }

// Leave tells the node to leave in order, waits for its exit, and returns the exit code.
func (n *Node) Leave(deadline time.Duration) int {
	n.t.Helper()
	n.Signal(syscall.SIGTERM)
	return n.WaitExit(deadline)
}

// WaitExit waits until the process has ended, and returns the exit code.
func (n *Node) WaitExit(deadline time.Duration) int {
	n.t.Helper()
	cmd, exited := n.process()
	if cmd == nil {
		n.t.Fatalf("%s was never started", n.Name)
	}
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-exited:
		return cmd.ProcessState.ExitCode()
	case <-timer.C:
		n.t.Fatalf("%s still runs after %s", n.Name, deadline)
		return -1
	}
}

// Signal sends a signal to the process.
func (n *Node) Signal(signal syscall.Signal) {
	cmd, _ := n.process()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Errorf("send %v to %s: %v", signal, n.Name, err)
	}
}

// Move gives the node another address. It takes effect at the next start.
func (n *Node) Move(ip string) { n.IP = ip }

// RPC returns the address of the node's gRPC port.
func (n *Node) RPC() string { return n.IP + ":7401" }

// HTTP returns the base URL of the node's HTTP port.
func (n *Node) HTTP() string { return "http://" + n.IP + ":7402" }

// Gossip returns the address of the node's gossip port.
func (n *Node) Gossip() string { return n.IP + ":7400" }

// Log returns all that the node's processes wrote.
func (n *Node) Log() string {
	raw, err := os.ReadFile(n.logPath)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// there returns a command that runs on the node's host and ends with the test.
func (n *Node) there(ctx context.Context, path string, args []string) *exec.Cmd {
	words := slices.Concat(n.enter, []string{path}, args)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.SysProcAttr = attributes()
	cmd.Env = append(os.Environ(), n.cluster.env...)
	return cmd
}

func (n *Node) process() (*exec.Cmd, chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd, n.exited
}

// trouble says what in the log no test may pass with.
func (n *Node) trouble() string {
	raw, err := os.ReadFile(n.logPath)
	if err != nil {
		return ""
	}
	for _, sign := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
		if i := bytes.Index(raw, []byte(sign)); i >= 0 {
			return fmt.Sprintf("%s\n%s", strings.TrimSpace(sign), raw[i:min(len(raw), i+6000)])
		}
	}
	return ""
}

func (n *Node) tail(lines int) string {
	all := strings.Split(strings.TrimRight(n.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
