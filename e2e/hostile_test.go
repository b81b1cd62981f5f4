package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestHostileGuestsCauseNoElectionAndNoFalseDeath(t *testing.T) {
	var flags []string
	if rig.Race {
		// Slower nodes under the same hostility: as slow a machine would be told.
		flags = []string{"--timing-multiplier", "3"}
	}
	c := product.Form(t, 3, flags...)
	waitVoters(t, c, 3)
	wasm := actor(t)
	via := c.Any()
	via.Run("--name", "good", "--count", "3", wasm, "--", "tick", "200")
	before := via.Status()
	for _, verb := range []string{"spin", "allocate", "flood", "recurse"} {
		via.Run("--name", verb, "--count", "3", "--restart", "always", "--backoff", "500ms", "--timeout", "60s", wasm, "--", verb)
	}
	slowest := time.Duration(0)
	turn := 0
	rig.Hold(t, "the peace of the cluster", 20*time.Second, func() error {
		turn++
		n := c.Nodes()[turn%3]
		began := time.Now()
		status, err := n.TryStatus()
		slowest = max(slowest, time.Since(began))
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", n.Name, err)
		case status.Term != before.Term:
			return fmt.Errorf("%s says term %d, and it was %d", n.Name, status.Term, before.Term)
		case status.Members.Alive != 3:
			return fmt.Errorf("%s sees %d alive", n.Name, status.Members.Alive)
		}
		return nil
	})
	t.Logf("the slowest answer took %s", slowest)
	for name, m := range via.Members() {
		if m.State != "alive" {
			t.Errorf("%s is %s", name, m.State)
		}
	}
	for _, n := range c.Nodes() {
		rss, err := n.RSS()
		if err != nil {
			t.Logf("the memory of %s: %v", n.Name, err)
		} else if limit := uint64(1500 << 20); rss > limit {
			t.Errorf("%s holds %d MiB", n.Name, rss>>20)
		}
	}
	for _, verb := range []string{"spin", "allocate", "flood", "recurse"} {
		var stopped []rig.Instance
		via.JSON(&stopped, "stop", "--timeout", "30s", verb)
		for _, i := range stopped {
			if i.Status != "stopped" && i.Status != "crashed" {
				t.Errorf("%s is %s after its stop", verb, i.Status)
			}
		}
	}
	for _, i := range waitRunning(t, via, "good", 3) {
		if i.Restarts != 0 {
			t.Errorf("the good neighbor %s restarted %d times", i.InstanceID, i.Restarts)
		}
	}
}
