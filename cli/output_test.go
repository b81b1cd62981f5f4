package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/api"
)

func exitCode(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Sprint(exit.ExitCode())
	}
	return err.Error()
}

func checkGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was; run the test with -update and look at the difference\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// The tables of a small cluster with all that is hard to fit: long names and errors, wide letters, what steers a terminal.
func sampleTables(now time.Time) map[string]func(io.Writer) error {
	ago := func(d time.Duration) *time.Time { t := now.Add(-d); return &t }
	code := int32(3)
	web := api.Instance{
		InstanceID: "01930000-0000-7000-8000-000000000001", Name: "web", NodeID: "5d4c", NodeName: "host-5", Status: "running",
		ModuleHash:    "sha256:ab12",
		RestartPolicy: api.RestartPolicy{PolicyType: "on_failure", MaxRetries: 3, BackoffSeconds: 1.5},
		Durability:    "local", CreatedAt: ago(90 * time.Second), StartedAt: ago(time.Minute), Generation: 1,
		Args: []string{"-v", "two words"}, MemoryLimitBytes: 64 << 20, CPUMillicores: 250, CPUHard: true, Fuel: 5_000_000_000, RunTimeoutSeconds: 90.5, Constraints: map[string]string{"zone": "b", "disk": "ssd"},
		Usage: api.Usage{CPUSeconds: 83.0456, CPUUsedCores: 0.987, Fuel: 1_234_567_890, MemoryBytes: 3 << 20, MemoryPeakBytes: 5 << 20},
	}
	worker := web
	worker.InstanceID, worker.Name, worker.Status, worker.NodeName = "01930000-0002-7000-8000-000000000002", "a-longer-name", "crashed", "n"
	worker.Usage.MemoryBytes, worker.Usage.CPUUsedCores = 0, 0
	worker.CreatedAt, worker.FinishedAt, worker.Restarts, worker.ExitCode = ago(50*time.Hour), ago(time.Hour), 12, &code
	worker.LastError = "exit code 3\x1b[31m\nand then some more that is far too long to be shown in one line of a table"
	wide := worker
	wide.InstanceID, wide.Name, wide.Status = "01930000-0003-7000-8000-000000000003", "宽宽宽", "restarting"
	p50, p99 := 0.0000123, 0.0345
	kv := api.Provider{
		ProviderID: "kv", ProviderType: "kv", Backend: "raft:", State: "running", Nodes: []string{"b", "host-5"}, Version: "v1",
		Calls: api.CallRates{CallsPerSecond: 1234.5, ErrorsPerSecond: 0.25, LatencyP50Seconds: &p50, LatencyP99Seconds: &p99},
	}
	idle := api.Provider{ProviderID: "mail", ProviderType: "http", Backend: "direct:", State: "failing", Failures: map[string]string{"b": "no route to host"}}
	return map[string]func(io.Writer) error{
		"instances": func(w io.Writer) error { return instanceTable(w, []api.Instance{web, worker, wide}, now) },
		"nothing":   func(w io.Writer) error { return instanceTable(w, nil, now) },
		"instance":  func(w io.Writer) error { return instanceFields(w, web) },
		"crashed":   func(w io.Writer) error { return instanceFields(w, worker) },
		"members": func(w io.Writer) error {
			return memberTable(w, []api.Member{
				{Name: "host-5", Role: "leader", State: "alive", Instances: 12, GossipAddr: "10.0.0.5:7400", RPCAddr: "10.0.0.5:7401", HTTPAddr: "10.0.0.5:7402", Version: "v1", Labels: map[string]string{"disk": "ssd"}},
				{Name: "b", Role: "agent", State: "draining", GossipAddr: "10.0.0.16:7400", RPCAddr: "10.0.0.16:7401", HTTPAddr: "10.0.0.16:7402", Version: "v1"},
			})
		},
		"load": func(w io.Writer) error {
			return loadTable(w, []api.Member{
				{
					Name: "host-5", Role: "leader", State: "alive", Instances: 12, MaxInstances: 10_000, CommittedMemoryBytes: 768 << 20, MaxMemoryBytes: 6 << 30, CommittedCPUMillicores: 1250, MaxCPUMillicores: 2000,
					Labels: map[string]string{"disk": "ssd"}, Vitals: &api.Vitals{CPUUsedCores: 0.034, CPUCores: 2, ResidentBytes: 90 << 20, UpSeconds: 90061, Starts: 40, Crashes: 3},
				},
				{Name: "b", Role: "agent", State: "dead", MaxInstances: 100, MaxMemoryBytes: 1 << 30},
			})
		},
		"providers": func(w io.Writer) error { return providerTable(w, []api.Provider{kv, idle}) },
		"provider":  func(w io.Writer) error { return providerFields(w, kv) },
		"status": func(w io.Writer) error {
			return statusFields(w, api.Status{
				ClusterID: "c-1", ClusterName: "paris", Leader: api.Leader{NodeID: "5d4c", Name: "host-5"}, Term: 4, Recovering: true, MissingNodes: []string{"b"},
				Voters: []string{"b", "host-5"}, Members: api.MemberCounts{Alive: 2, Left: 1}, Instances: map[string]uint32{"stopped": 2, "running": 5}, Version: "v1",
			})
		},
		"modules": func(w io.Writer) error {
			return moduleTable(w, []api.Module{
				{ModuleHash: "sha256:" + strings.Repeat("ab", 32), SizeBytes: 156 << 10, Nodes: []string{"b", "host-5"}, Instances: 3, LiveInstances: 2, StoredAt: ago(time.Hour)},
				{ModuleHash: "sha256:" + strings.Repeat("cd", 32), Instances: 1, LiveInstances: 1},
			}, now)
		},
		"event": func(w io.Writer) error {
			return printEvent(w, api.Event{
				Time: &now, Type: "instance.crashed", InstanceID: web.InstanceID, Name: "web", Details: map[string]string{"exit_code": "3", "error": "a\nb"},
			})
		},
	}
}

var sampleTime = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func TestTablesReadAsTheyDid(t *testing.T) {
	for name, show := range sampleTables(sampleTime) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := show(&out); err != nil {
				t.Fatal(err)
			}
			checkGolden(t, filepath.Join("testdata", name+".golden"), out.Bytes())
		})
	}
}

func TestShortIDsStandForOneOfThoseShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOf(rapid.Custom(func(t *rapid.T) string {
			// Made in few milliseconds, with few sequence numbers, so that they share much.
			return fmt.Sprintf("01930000-%04x-7%03x-8000-%012x",
				rapid.IntRange(0, 2).Draw(t, "ms"), rapid.IntRange(0, 2).Draw(t, "seq"), rapid.IntRange(0, 20).Draw(t, "random"))
		})).Draw(t, "ids")
		width := prefixWidth(ids, shortestID)
		if width < shortestID {
			t.Fatalf("%d characters are too few to be told from ids not shown", width)
		}
		ofPrefix := map[string]string{}
		for _, id := range ids {
			short := id[:min(width, len(id))]
			if other, taken := ofPrefix[short]; taken && other != id {
				t.Fatalf("%s stands for %s and %s", short, id, other)
			}
			ofPrefix[short] = id
			if short[len(short)-1] == '-' {
				t.Fatalf("%s ends in a dash", short)
			}
		}
	})
}

func TestAgesAreShort(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		-time.Second:               "0s", // another host's clock
		59 * time.Second:           "59s",
		90 * time.Second:           "1m30s",
		3*time.Hour + time.Minute:  "3h1m",
		50 * time.Hour:             "2d2h",
		400*24*time.Hour + 1000000: "400d0h",
	} {
		then := now.Add(-d)
		if got := age(&then, now); got != want {
			t.Errorf("%s is shown as %s, want %s", d, got, want)
		}
	}
}
