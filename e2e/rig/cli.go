package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// How long a command may run before the rig ends it: longer than any --timeout that tests give.
const commandDeadline = 90 * time.Second

// Result is what a command did.
type Result struct {
	Stdout string
	Stderr string
	Code   int
}

// Err returns nil for exit code 0, and else an error of type *Error where the command printed one.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	if e := r.Reported(); e != nil {
		return e
	}
	return fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
}

// Reported returns the contract's error that the command printed, or nil.
func (r Result) Reported() *Error {
	// Diagnostics may come first; the error is the last thing printed.
	i := strings.Index(r.Stderr, "{")
	if i < 0 {
		return nil
	}
	e := &Error{}
	if err := json.Unmarshal([]byte(r.Stderr[i:]), e); err == nil && e.Code != "" {
		return e
	}
	return nil
}

// Error returns the message and the code.
func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }

// CLI runs a command against this node with -o json, and returns what it did.
func (n *Node) CLI(args ...string) Result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	cmd := n.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("%v: %v", args, err)
	}
	if ctx.Err() != nil {
		n.t.Fatalf("%v ran longer than %s\nstdout: %s\nstderr: %s", args, commandDeadline, stdout.String(), stderr.String())
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// Command returns a command against this node with -o json that has not started yet.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	i := commandLength(args)
	words := slices.Concat(args[:i], []string{"--addr", n.RPC(), "-o", "json"}, args[i:])
	return n.there(ctx, n.installed().Client, words)
}

// commandLength returns how many words name the command: flags come after them.
func commandLength(args []string) int {
	groups := []string{"node", "module", "operator", "raft", "snapshot", "capability", "provider"}
	n := 1
	for n < len(args) && n < 3 && slices.Contains(groups, args[n-1]) {
		n++
	}
	return n
}

// JSON runs a command that must succeed and decodes what it printed.
func (n *Node) JSON(into any, args ...string) {
	n.t.Helper()
	if err := n.TryJSON(into, args...); err != nil {
		n.t.Fatal(err)
	}
}

// TryJSON runs a command and decodes what it printed.
func (n *Node) TryJSON(into any, args ...string) error {
	n.t.Helper()
	r := n.CLI(args...)
	if err := r.Err(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		return fmt.Errorf("%s printed no JSON of its shape: %w\n%s", strings.Join(args, " "), err, r.Stdout)
	}
	return nil
}

// Run starts instances and returns them.
func (n *Node) Run(args ...string) []Instance {
	n.t.Helper()
	started, err := n.TryRun(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return started
}

// TryRun starts instances and returns them, or the error.
func (n *Node) TryRun(args ...string) ([]Instance, error) {
	n.t.Helper()
	var started []Instance
	err := n.TryJSON(&started, append([]string{"run"}, args...)...)
	return started, err
}

// PS lists instances.
func (n *Node) PS(args ...string) []Instance {
	n.t.Helper()
	listed, err := n.TryPS(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return listed
}

// TryPS lists instances, or returns the error.
func (n *Node) TryPS(args ...string) ([]Instance, error) {
	n.t.Helper()
	var listed []Instance
	err := n.TryJSON(&listed, append([]string{"ps"}, args...)...)
	return listed, err
}

// Inspect returns one instance.
func (n *Node) Inspect(ref string) Instance {
	n.t.Helper()
	var one Instance
	n.JSON(&one, "inspect", ref)
	return one
}

// Members returns the nodes, by name.
func (n *Node) Members() map[string]Member {
	n.t.Helper()
	members, err := n.TryMembers()
	if err != nil {
		n.t.Fatal(err)
	}
	return members
}

// TryMembers returns the nodes, by name, or the error.
func (n *Node) TryMembers() (map[string]Member, error) {
	n.t.Helper()
	var list []Member
	if err := n.TryJSON(&list, "members"); err != nil {
		return nil, err
	}
	members := make(map[string]Member, len(list))
	for _, m := range list {
		if _, twice := members[m.Name]; twice {
			return nil, fmt.Errorf("members lists %s twice", m.Name)
		}
		members[m.Name] = m
	}
	return members, nil
}

// Status returns the cluster at a glance.
func (n *Node) Status() Status {
	n.t.Helper()
	status, err := n.TryStatus()
	if err != nil {
		n.t.Fatal(err)
	}
	return status
}

// TryStatus returns the cluster at a glance, or the error. It does not wait for a leader.
func (n *Node) TryStatus() (Status, error) {
	n.t.Helper()
	var status Status
	err := n.TryJSON(&status, "status", "--timeout", "2s")
	return status, err
}

// Events returns the events gathered so far.
func (n *Node) Events() []Event {
	n.t.Helper()
	var events []Event
	n.JSON(&events, "events")
	return events
}

// Logs returns what logs prints of an instance, entry by entry.
func (n *Node) Logs(args ...string) []LogEntry {
	n.t.Helper()
	var entries []LogEntry
	n.JSON(&entries, append([]string{"logs"}, args...)...)
	return entries
}

// LogEntry is one piece of an instance's output.
type LogEntry struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Line   string    `json:"line"`
}
