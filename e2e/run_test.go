package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

func TestInstancesAreRunSeenAndStoppedFromAnyNode(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 4) // the fourth is no voter
	waitVoters(t, c, 3)
	wasm := actor(t)
	where := map[string]int{}
	for turn, via := range c.Nodes() {
		name := "from-" + via.Name
		started := via.Run("--name", name, "--env", "WHO="+via.Name, "--count", "2", wasm, "--",
			"env", "WHO", "say", "out", "err", "oops", "forever")
		if len(started) != 2 {
			t.Fatalf("run from %s started %d, want 2", via.Name, len(started))
		}
		one := started[0]
		where[one.NodeName]++
		where[started[1].NodeName]++
		for _, ask := range []*rig.Node{via, c.Nodes()[(turn+1)%4]} {
			got := ask.Inspect(one.InstanceID[:len(one.InstanceID)-1])
			if got.InstanceID != one.InstanceID || got.Status != "running" || got.Name != name || got.NodeID != one.NodeID {
				t.Errorf("%s shows %+v, want what run said: %+v", ask.Name, got, one)
			}
			rig.Wait(t, "the output as seen from "+ask.Name, 10*time.Second, func() error {
				var lines []string
				for _, entry := range ask.Logs(one.InstanceID) {
					lines = append(lines, entry.Stream+": "+entry.Line)
				}
				slices.Sort(lines) // the two streams have no order between them
				return rig.Want("the output", strings.Join(lines, "|"), "stderr: oops|stdout: WHO="+via.Name+"|stdout: out")
			})
		}
	}
	if len(where) != 4 {
		t.Errorf("8 instances on 4 nodes went to %v", where)
	}

	// A name stands for all of that name; the other nodes hear of the end.
	last := c.Nodes()[3]
	var stopped []rig.Instance
	last.JSON(&stopped, "stop", "from-n1", "from-n2")
	if len(stopped) != 4 {
		t.Errorf("stop ended %d, want 4", len(stopped))
	}
	for _, ask := range c.Nodes() {
		if left := ask.PS(); len(left) != 4 {
			t.Errorf("%s lists %d, want 4", ask.Name, len(left))
		}
		if all := ask.PS("-a"); len(all) != 8 {
			t.Errorf("%s lists %d with -a, want 8", ask.Name, len(all))
		}
		var names []string
		for _, i := range ask.PS("--filter", "FROM-N", "--status", "stopped,crashed", "--sort", "name", "--reverse", "--limit", "3") {
			names = append(names, i.Name)
		}
		if want := []string{"from-n2", "from-n2", "from-n1"}; !slices.Equal(names, want) {
			t.Errorf("the first page on %s is %v, want %v", ask.Name, names, want)
		}
	}
	if ended := last.Inspect(stopped[0].InstanceID); ended.Status != "stopped" || ended.FinishedAt == nil {
		t.Errorf("the stopped instance is %+v", ended)
	}
	if kept := last.Logs(stopped[0].InstanceID); len(kept) == 0 {
		t.Error("the output is gone with the instance")
	}
	rig.Wait(t, "the life of a stopped instance", 10*time.Second, func() error {
		var life []rig.Event
		if err := last.TryJSON(&life, "events", "--instance", stopped[0].InstanceID[:len(stopped[0].InstanceID)-1]); err != nil {
			return err
		}
		if len(life) != 2 || life[0].Type != "instance.started" || life[1].Type != "instance.stopped" || life[1].InstanceID != stopped[0].InstanceID {
			return fmt.Errorf("it is %+v", life)
		}
		return nil
	})
	rig.Wait(t, "events of 8 starts and 4 stops", 10*time.Second, func() error {
		count := map[string]int{}
		for _, e := range last.Events() {
			count[e.Type]++
		}
		if count["instance.started"] < 8 || count["instance.stopped"] < 4 || count["leader.elected"] < 1 {
			return fmt.Errorf("they are %v", count)
		}
		return nil
	})
}

// TestGoModuleRunsOnEachNode has the machine to itself: under the race detector two nodes compile for ten seconds each.
func TestGoModuleRunsOnEachNode(t *testing.T) {
	c := product.Form(t, 2)
	for _, n := range c.Nodes() {
		mustRunOn(t, c.Any(), n) // else a node may not have registered yet
	}
	started := c.Nodes()[1].Run("--name", "hello", "--count", "2", "--timeout", "60s", "--restart", "never",
		guest.Go(t, filepath.Join("..", "examples", "hello")))
	for _, one := range started {
		rig.Wait(t, one.InstanceID+" to end well", 20*time.Second, func() error {
			i := c.Any().Inspect(one.InstanceID)
			return rig.Want("its status", i.Status, "stopped")
		})
		if len(c.Any().Logs(one.InstanceID)) == 0 {
			t.Errorf("%s on %s said nothing", one.InstanceID, one.NodeName)
		}
	}
	if started[0].NodeName == started[1].NodeName {
		t.Errorf("both went to %s", started[0].NodeName)
	}
}

func TestRetriedStartFindsTheInstance(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	id := "01930000-0000-7000-8000-000000000001"
	first := c.Nodes()[0].Run("--instance-id", id, "--name", "once", actor(t), "--", "forever")
	again := c.Nodes()[2].Run("--instance-id", id, "--name", "once", actor(t), "--", "forever")
	if len(again) != 1 || again[0].InstanceID != id || again[0].NodeID != first[0].NodeID {
		t.Errorf("first %+v, then %+v", first, again)
	}
	if listed := c.Any().PS(); len(listed) != 1 {
		t.Errorf("ps lists %d, want 1", len(listed))
	}
}

func TestRestartPoliciesDecideWhatFollowsAnEnd(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 2)
	n := c.Nodes()[1]
	for _, test := range []struct {
		name, policy, end string
		flags             []string
		status            string
		restarts          int
		lastError         string
	}{
		{"never-fails", "never", "exit 3", nil, "crashed", 0, "3"},
		{"never-ends", "never", "exit 0", nil, "stopped", 0, ""},
		{"failure-ends", "on-failure", "exit 0", nil, "stopped", 0, ""},
		{"failure-fails", "on-failure", "exit 3", []string{"--max-retries", "2"}, "crashed", 2, "3"},
		{"failure-traps", "on-failure", "trap", []string{"--max-retries", "1"}, "crashed", 1, "unreachable"},
		{"always-ends", "always", "exit 0", []string{"--max-retries", "2"}, "stopped", 2, ""},
	} {
		flags := append([]string{"--name", test.name, "--restart", test.policy, "--backoff", "100ms"}, test.flags...)
		n.Run(slices.Concat(flags, []string{actor(t), "--", "sleep", "50"}, strings.Fields(test.end))...)
		rig.Wait(t, test.name+" to end for good", 20*time.Second, func() error {
			i := n.Inspect(test.name)
			if i.Status != test.status || i.Restarts != test.restarts {
				return fmt.Errorf("it is %s after %d restarts, want %s after %d", i.Status, i.Restarts, test.status, test.restarts)
			}
			if !strings.Contains(i.LastError, test.lastError) || (test.lastError == "" && i.LastError != "") {
				return fmt.Errorf("last_error is %q, want something with %q", i.LastError, test.lastError)
			}
			return nil
		})
	}

	n.Run("--name", "waits", "--restart", "always", "--backoff", "30s", actor(t), "--", "exit", "1")
	rig.Wait(t, "an instance in its backoff", 20*time.Second, func() error {
		return rig.Want("its status", n.Inspect("waits").Status, "restarting")
	})
	n.JSON(new([]rig.Instance), "stop", "waits")
	if i := n.Inspect("waits"); i.Status != "stopped" {
		t.Errorf("stopped in its backoff, it is %s", i.Status)
	}
}

func TestStopInterruptsAnythingWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1)
	n := c.Any()
	for _, verb := range []string{"spin", "forever", "flood", "allocate"} {
		id := n.Run("--name", verb, actor(t), "--", verb)[0].InstanceID
		began := time.Now()
		n.JSON(new([]rig.Instance), "stop", id)
		if took := time.Since(began); took > 4*time.Second { // two, and two for a command on a busy machine
			t.Errorf("stop of %s took %s", verb, took)
		}
		if i := n.Inspect(id); i.Status != "stopped" {
			t.Errorf("%s is %s after its stop: %s", verb, i.Status, i.LastError)
		}
	}
}

func TestLogsFollowAnInstanceOnAnotherNode(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	one := c.Nodes()[0].Run("--name", "ticker", actor(t), "--", "lines", "50", "tick", "100")[0]
	var from *rig.Node
	for _, n := range c.Nodes() {
		if n.Name != one.NodeName {
			from = n
		}
	}
	rig.Wait(t, "fifty lines and a tick", 10*time.Second, func() error {
		if got := len(from.Logs("ticker")); got < 51 {
			return fmt.Errorf("%d lines", got)
		}
		return nil
	})
	if tail := from.Logs("--tail", "2", "ticker"); len(tail) != 2 {
		t.Errorf("--tail 2 shows %d lines", len(tail))
	}

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := from.Command(ctx, "logs", "-f", "--tail", "1", "ticker")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // killed by the cancel
	}()
	scanner := bufio.NewScanner(out)
	last := 0
	for i := range 6 {
		if !scanner.Scan() {
			t.Fatalf("logs -f ended after %d lines", i)
		}
		var entry rig.LogEntry
		if err := json.Unmarshal(scanner.Bytes(), &entry); err != nil {
			t.Fatalf("line %q: %v", scanner.Text(), err)
		}
		var tick int
		if _, err := fmt.Sscanf(entry.Line, "tick %d", &tick); err != nil {
			t.Fatalf("line %q: %v", entry.Line, err)
		}
		if last != 0 && tick != last+1 {
			t.Errorf("tick %d follows tick %d", tick, last)
		}
		last = tick
	}
}
