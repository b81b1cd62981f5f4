package agent

import (
	"strings"
	"testing"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func TestLimitsCountWhatIsLive(t *testing.T) {
	h := newHost(t, "n1", nil, func(c *Config) { c.MaxInstances, c.MaxMemory = 2, 16<<20 })
	hash := h.push(actor(t))
	ids := []string{newID(), newID(), newID()}
	for _, id := range ids[:2] {
		h.mustStart(spec(hash, "sleep", "1000000"), id)
	}
	_, err := h.start(spec(hash, "exit", "0"), ids[2], 1)
	wantCode(t, err, rpc.ResourceExhausted)
	if !strings.Contains(err.Error(), "runs 2 instances and takes no more than 2") {
		t.Fatalf("it says %q", err)
	}
	if rec, err := h.start(spec(hash, "sleep", "1000000"), ids[0], 2); err != nil || rec.GetStatus() != isRunning {
		t.Fatalf("what replaces another needs no room of its own: %v, %v", rec, err)
	}
	h.stopOne(ids[0], false)
	h.mustStart(spec(hash, "sleep", "1000000"), ids[2])
	h.stopOne(ids[1], false)
	h.stopOne(ids[2], false)

	big := spec(hash, "sleep", "1000000")
	big.MemoryLimitBytes = 12 << 20
	h.mustStart(big, newID())
	_, err = h.start(spec(hash), newID(), 1)
	if err != nil { // 12 and 4 MiB are exactly the limit
		t.Fatal(err)
	}
}

func TestNoMoreCPUIsPromisedThanThereIs(t *testing.T) {
	h := newHost(t, "n1", nil, func(c *Config) { c.MaxCPU = 1000 })
	asks := func(cpu uint32) *pb.InstanceSpec {
		s := spec(h.push(actor(t)), "sleep", "1000000")
		s.CpuMillicores = cpu
		return s
	}
	first, second := newID(), newID()
	h.mustStart(asks(700), first)
	_, err := h.start(asks(301), second, 1)
	wantCode(t, err, rpc.ResourceExhausted)
	if !strings.Contains(err.Error(), "has promised 700 of 1000 millicores of CPU to instances, and one of 301 does not fit; see --max-cpu") {
		t.Fatalf("it says %q", err)
	}
	h.mustStart(asks(300), second)
	h.mustStart(asks(0), newID()) // it is promised nothing
	if rec, err := h.start(asks(700), first, 2); err != nil || rec.GetStatus() != isRunning {
		t.Fatalf("what replaces another needs no CPU of its own: %v, %v", rec, err)
	}
	h.stopOne(first, false)
	if got := h.Load().GetCommittedCpuMillicores(); got != 300 {
		t.Fatalf("after one of two has ended, %d millicores are promised", got)
	}
	h.mustStart(asks(700), newID())
}
