package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// What an instance uses is seen from any node, also after a change of leader, and stays after its end.
func TestUsageOfAnInstanceIsKnownEverywhere(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	leader := c.Leader()
	if r := leader.CLI("node", "drain", leader.Name); r.Code != 0 { // so that the guest runs elsewhere
		t.Fatalf("drain: %v", r.Err())
	}
	started := leader.Run("--name", "spins", "--restart", "never", actor(t), "--", "spin")[0]
	var via *rig.Node // neither the guest's node nor the leader
	for _, n := range c.Followers() {
		if n.Name != started.NodeName {
			via = n
		}
	}
	used := func(args ...string) (u api.Usage, err error) {
		if args[0] == "inspect" {
			var i api.Instance
			err = via.TryJSON(&i, args...)
			return i.Usage, err
		}
		var all []api.Instance
		if err = via.TryJSON(&all, args...); err == nil && len(all) != 1 {
			err = fmt.Errorf("%d instances", len(all))
		}
		if err == nil {
			u = all[0].Usage
		}
		return u, err
	}
	// more waits until an answer says that it has computed for longer than that, and uses a processor and memory.
	more := func(than api.Usage, args ...string) (u api.Usage) {
		t.Helper()
		rig.Wait(t, fmt.Sprintf("%v to say more than %+v", args, than), 30*time.Second, func() (err error) {
			if u, err = used(args...); err != nil {
				return err
			}
			if u.CPUSeconds <= than.CPUSeconds || u.Fuel <= than.Fuel || u.MemoryBytes == 0 || u.MemoryPeakBytes < u.MemoryBytes {
				return fmt.Errorf("it says %+v", u)
			}
			return nil
		})
		return u
	}
	listed := more(api.Usage{}, "ps")
	seen := more(listed, "inspect", "spins") // which asks the guest's node
	seen = more(seen, "inspect", "spins")
	rig.Wait(t, "the processor that it uses", 30*time.Second, func() error {
		u, err := used("ps", "--sort", "cpu")
		if err == nil && (u.CPUUsedCores <= 0 || u.CPUUsedCores > 1) {
			err = fmt.Errorf("it is %v", u.CPUUsedCores)
		}
		return err
	})
	leader.Kill()
	seen = more(seen, "ps")
	if r := via.CLI("stop", "spins"); r.Code != 0 {
		t.Fatalf("stop: %v", r.Err())
	}
	last, err := used("inspect", "spins")
	if err != nil || last.CPUSeconds < seen.CPUSeconds || last.Fuel < seen.Fuel || last.MemoryBytes != 0 || last.CPUUsedCores != 0 || last.MemoryPeakBytes < seen.MemoryBytes {
		t.Errorf("after its end: %+v (%v); it had used %+v", last, err, seen)
	}
	if listed, err := used("ps", "-a"); err != nil || listed != last {
		t.Errorf("listed: %+v (%v); inspected: %+v", listed, err, last)
	}
}
