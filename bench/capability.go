package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// loaded is what a guest that made calls has printed of them.
type loaded struct {
	calls    int
	p50, p99 time.Duration
}

// loadSeconds is how long guests make calls.
const loadSeconds = 5

// load runs guests that make calls, and returns what each printed.
func (b *bench) load(c *rig.Cluster, guests int, flags []string, kind, capability string) []loaded {
	wasm := b.built(guest.BuildC(context.Background(), filepath.Join(b.root, "bench", "testdata", "loader.c")))
	name := fmt.Sprintf("load-%s-%s-%d", kind, capability, guests)
	args := append([]string{"--name", name, "--count", fmt.Sprint(guests), "--restart", "never", "--memory", "16MiB",
		"--capability", capability + "=kv:read,kv:write"}, flags...)
	started := c.Any().Run(append(args, wasm, "--", kind, fmt.Sprint(loadSeconds), capability)...)
	results := make([]loaded, 0, guests)
	for _, i := range started {
		rig.Wait(b, "a guest to end", loadSeconds*time.Second+time.Minute, func() error {
			if now := c.Any().Inspect(i.InstanceID); now.Status != "stopped" {
				return fmt.Errorf("%s is %s: %s", i.InstanceID, now.Status, now.LastError)
			}
			return nil
		})
		var r loaded
		var p50, p99 int64
		log := c.Any().Logs(i.InstanceID)
		last := log[len(log)-1].Line
		if _, err := fmt.Sscanf(strings.TrimSpace(last), "%d calls, %d ns, %d ns", &r.calls, &p50, &p99); err != nil {
			b.Fatalf("a guest printed %q: %v", last, err)
		}
		r.p50, r.p99 = time.Duration(p50), time.Duration(p99)
		results = append(results, r)
	}
	return results
}

// capabilityCalls measures calls as guests of a cluster see them.
func capabilityCalls(b *bench) {
	c := b.formed(3)
	leader := c.Leader()
	on := func(n *rig.Node) []string { return []string{"--constraint", "node=" + n.Name} }
	for _, n := range c.Nodes() { // so that a guest can be put on one
		n.Leave(time.Minute)
		n.Start("--label", "node="+n.Name, "--join", leader.Gossip())
		c.WaitFormed(3)
		b.threeVoters(c)
	}
	var made any
	c.Any().JSON(&made, "provider", "start", "kv", "--id", "near", "--backend", "memory:", "--on", "node="+c.Nodes()[0].Name)
	near := b.load(c, 1, on(c.Nodes()[0]), "get", "near")[0]
	report(b, "kv get of the backend memory: on the guest's node, p50", near.p50, 0, "")
	far := b.load(c, 1, on(c.Nodes()[1]), "get", "near")[0]
	report(b, "the same on another node, p50", far.p50, 300*time.Microsecond, "")
	report(b, "the same, p99", far.p99, 0, "")
	one := b.load(c, 1, nil, "set", "kv")[0]
	report(b, "kv set of the backend raft: on 3 nodes by one guest, p50", one.p50, 0, "")
	report(b, "the same, p99", one.p99, 0, "")
	total := 0
	for _, r := range b.load(c, 64, nil, "set", "kv") {
		total += r.calls
	}
	b.reportLeast("kv sets a second of the backend raft: by 64 guests on 3 nodes", float64(total)/loadSeconds, 5000)
}

// reportLeast adds a line to the table: a rate, and the least that was promised of it.
func (b *bench) reportLeast(what string, measured, promised float64) {
	b.rows = append(b.rows, row{what: what, measured: fmt.Sprintf("%.0f", measured), promised: fmt.Sprintf("≥ %.0f", promised), kept: measured >= promised})
	b.Logf("  %s: %.0f", what, measured)
}

// reportMost adds a line to the table: a number, and the most that was promised of it, which may be none.
func (b *bench) reportMost(what string, measured, promised float64) {
	b.rows = append(b.rows, row{what: what, measured: fmt.Sprintf("%.0f", measured), promised: fmt.Sprintf("≤ %.0f", promised), kept: measured <= promised})
	b.Logf("  %s: %.0f", what, measured)
}
