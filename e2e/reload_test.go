package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// logLevel is one row of operator log-level.
type logLevel struct {
	Name  string     `json:"name"`
	Level string     `json:"level"`
	Until *time.Time `json:"until"`
	Then  string     `json:"then"`
}

func TestHangupAppliesWhatCanChangeAndNamesWhatWaits(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "wasmatrix.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("max-instances: 1\nlabel: {zone: a}\n")
	c := product.Form(t, 1, "--config", file)
	n := c.Any()
	rig.Wait(t, "the only place to be taken", 20*time.Second, func() error {
		_, err := n.TryRun("--name", "one", actor(t), "--", "forever")
		return err
	})
	if r := n.CLI("run", actor(t), "--", "forever"); r.Code != 1 || r.Reported().Code != "RESOURCE_EXHAUSTED" {
		t.Fatalf("a second instance: exit code %d, %s", r.Code, r.Stderr)
	}

	write("max-instances: 2\nmax-cpu: 700\nlabel: {zone: b}\nlog-level: debug\nvoters: 5\n")
	n.Signal(syscall.SIGHUP)
	rig.Wait(t, "room and label", 20*time.Second, func() error {
		_, err := n.TryRun("--name", "two", "--constraint", "zone=b", actor(t), "--", "forever")
		return err
	})
	rig.Wait(t, "the log to say so", 20*time.Second, func() error { return logHas(n, "the configuration was read again", "settings=4") })
	for _, line := range [][]string{
		{"a setting has changed", "setting=max-instances value=2 was=1"}, {"a setting has changed", "setting=log-level value=debug was=info"},
		{"a setting changes with the next start only", "setting=voters value=5 was=3"}, {"level=DEBUG"},
	} {
		if err := logHas(n, line...); err != nil {
			t.Error(err)
		}
	}

	if m := n.Members()[n.Name]; m.MaxCPUMillicores != 700 {
		t.Errorf("to the leader it promises %d millicores", m.MaxCPUMillicores)
	}

	write("max-instances: 0\nvotrs: 3\n")
	n.Signal(syscall.SIGHUP)
	rig.Wait(t, "the log to refuse it", 20*time.Second, func() error {
		return logHas(n, "nothing changes", "wasmatrix.yaml:2:1", "did you mean")
	})
	if status := n.Status(); status.Instances["running"] != 2 {
		t.Errorf("after a wrong file: %+v", status)
	}
}

func TestLogLevelOfAnyNodeChangesFromAnyNode(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 2)
	asked, other := c.Get("n1"), c.Get("n2")
	levels := func(args ...string) []logLevel {
		t.Helper()
		var all []logLevel
		asked.JSON(&all, append([]string{"operator", "log-level"}, args...)...)
		return all
	}
	if got := levels("--node", "n2", "debug"); len(got) != 1 || got[0].Name != "n2" || got[0].Level != "debug" || got[0].Until != nil {
		t.Errorf("changed: %+v", got)
	}
	rig.Wait(t, "details in the log of n2", 20*time.Second, func() error { return logHas(other, "level=DEBUG") })
	if got := levels(); len(got) != 1 || got[0].Name != "n1" || got[0].Level != "info" {
		t.Errorf("of the one that is asked: %+v", got)
	}
	if got := levels("--all", "--for", "1s", "warn"); len(got) != 2 || got[0].Level != "warn" || got[0].Until == nil {
		t.Errorf("of all for a time: %+v", got)
	}
	rig.Wait(t, "the levels before", 20*time.Second, func() error {
		all := levels("--all")
		seen := map[string]string{}
		for _, l := range all {
			seen[l.Name] = l.Level
		}
		if seen["n1"] != "info" || seen["n2"] != "debug" {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
	if r := asked.CLI("operator", "log-level", "--node", "nobody"); r.Code != 1 || r.Reported().Code != "NODE_NOT_FOUND" {
		t.Errorf("of nobody: exit code %d, %s", r.Code, r.Stderr)
	}
}
