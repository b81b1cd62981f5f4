package e2e

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// Eight guests for each core on each of three nodes, which share those cores.
func TestGuestsThatNeverRestHoldUpNobody(t *testing.T) {
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	wasm := actor(t)
	via := c.Any()
	before := via.Status()
	spinning := 3 * 8 * runtime.NumCPU()
	via.Run("--name", "spin", "--count", fmt.Sprint(spinning), "--memory", "1MiB", "--timeout", "60s", wasm, "--", "spin")
	for name, m := range via.Members() {
		if m.Instances != spinning/3 {
			t.Errorf("%s has %d of %d", name, m.Instances, spinning)
		}
	}
	for round := range 3 {
		for _, n := range c.Nodes() {
			name := fmt.Sprintf("other-%s-%d", n.Name, round)
			n.Run("--name", name, wasm, "--", "forever")
			var stopped []rig.Instance
			n.JSON(&stopped, "stop", name)
			if len(stopped) != 1 || stopped[0].Status != "stopped" {
				t.Errorf("%s after its stop: %+v", name, stopped)
			}
		}
	}
	for _, n := range c.Nodes() {
		status := n.Status()
		if status.Term != before.Term || status.Leader != before.Leader || status.Members.Alive != 3 {
			t.Errorf("%s says %+v, and it was %+v", n.Name, status, before)
		}
	}
	var stopped []rig.Instance
	via.JSON(&stopped, "stop", "--timeout", "30s", "spin")
	if len(stopped) != spinning {
		t.Errorf("%d of %d are stopped", len(stopped), spinning)
	}
	for _, i := range stopped {
		if i.Status != "stopped" || i.Restarts != 0 {
			t.Errorf("%s is %s after its stop, with %d restarts", i.InstanceID, i.Status, i.Restarts)
		}
	}
}
