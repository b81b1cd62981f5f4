package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestGuestsComputeNoMoreThanTheyWereGiven(t *testing.T) {
	t.Parallel()
	n := product.Form(t, 1, "--max-cpu", "1000").Any()
	ended := func(name string) rig.Instance {
		t.Helper()
		var last rig.Instance
		rig.Wait(t, name+" to have crashed for good", 30*time.Second, func() error {
			all, err := n.TryPS("-a", "--name", name)
			if err != nil || len(all) != 1 {
				return fmt.Errorf("%d instances: %w", len(all), err)
			}
			last = all[0]
			return rig.Want("the status", last.Status, "crashed")
		})
		return last
	}

	// How long a run takes.
	n.Run("--name", "slow", "--run-timeout", "100ms", "--max-retries", "1", "--backoff", "50ms", actor(t), "--", "spin")
	slow := ended("slow")
	if slow.LastError != "it ran longer than 100ms (--run-timeout); given up after 1 restarts in a row" || slow.Restarts != 1 {
		t.Errorf("after %d restarts it says %q", slow.Restarts, slow.LastError)
	}
	// Its time goes by from its instantiation on, which runs code of its own; it is said to be started after that.
	if took := slow.FinishedAt.Sub(*slow.StartedAt); took < 90*time.Millisecond {
		t.Errorf("its last run took only %s", took)
	}

	// What is promised of the CPU.
	n.Run("--name", "promised", "--cpu", "700", "--cpu-hard", actor(t), "--", "forever")
	if r := n.CLI("run", "--cpu", "400", "--timeout", "5s", actor(t), "--", "forever"); r.Code != 1 || r.Reported().Code != "RESOURCE_EXHAUSTED" ||
		!strings.Contains(r.Reported().Message, "700 of its 1000 millicores are committed, and 400 are needed") {
		t.Errorf("more than there is: exit code %d, %s", r.Code, r.Stderr)
	}
	n.Run("--name", "rest", "--cpu", "300", actor(t), "--", "forever")
	if m := n.Members()[n.Name]; m.CommittedCPUMillicores != 1000 || m.MaxCPUMillicores != 1000 {
		t.Errorf("the node has promised %d of %d millicores", m.CommittedCPUMillicores, m.MaxCPUMillicores)
	}

	// How much it computes: whatever the policy, and however its node goes down.
	work := []string{actor(t), "--", "count", "3000000", "exit", "1"}
	n.Run(append([]string{"--name", "one", "--restart", "never"}, work...)...)
	cost := ended("one").Usage.Fuel
	budget := fmt.Sprint(cost + cost/2)
	n.Run(append([]string{"--name", "batch", "--restart", "always", "--backoff", "2s", "--fuel", budget}, work...)...)
	rig.Wait(t, "its first run to be over", 20*time.Second, func() error {
		all, err := n.TryPS("-a", "--name", "batch")
		if err != nil {
			return err
		}
		return rig.Want("what it has used", len(all) == 1 && all[0].Usage.Fuel >= cost && all[0].Status != "running", true)
	})
	n.Kill()
	n.Restart()
	batch := ended("batch")
	if batch.LastError != "its fuel is used up (--fuel "+budget+")" || batch.Usage.Fuel != cost+cost/2 {
		t.Errorf("with %s units, of which a run takes %d, it has used %d and says %q", budget, cost, batch.Usage.Fuel, batch.LastError)
	}
	if batch.Generation != 1 {
		t.Errorf("it is another one, of generation %d", batch.Generation)
	}
}
