package agent

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/modulestore"
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

func TestRunThatTakesTooLongIsAFailure(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	for _, verb := range []string{"spin", "sleep"} {
		id := newID()
		s := withPolicy(spec(hash, verb, "1000000"), pb.PolicyType_POLICY_TYPE_ON_FAILURE, 1, time.Millisecond)
		s.RunTimeout = durationpb.New(50 * time.Millisecond)
		h.mustStart(s, id)
		rec := h.waitFor(id, crashed)
		if want := "it ran longer than 50ms (--run-timeout); given up after 1 restarts in a row"; rec.GetLastError() != want || rec.GetRestarts() != 1 || rec.ExitCode != nil {
			t.Errorf("%s: it says %q, after %d restarts", verb, rec.GetLastError(), rec.GetRestarts())
		}
		if got, want := h.events(id), []string{eventStarted, eventCrashed, eventRestarted, eventCrashed}; !slices.Equal(got, want) {
			t.Errorf("%s: events are %v", verb, got)
		}
	}
	id := newID()
	s := spec(h.push(spinsBeforeStart))
	s.RunTimeout = durationpb.New(50 * time.Millisecond)
	_, err := h.start(s, id, 1)
	wantCode(t, err, rpc.Timeout)
	if !strings.Contains(err.Error(), "it ran longer than 50ms (--run-timeout)") || h.query(id) != nil {
		t.Errorf("a start section: it says %q and left %v", err, h.query(id))
	}
}

// counting is a guest that computes the same each time, and then ends as it is told.
func counting(hash string, end ...string) *pb.InstanceSpec {
	return withPolicy(spec(hash, append([]string{"count", "3000000"}, end...)...), pb.PolicyType_POLICY_TYPE_ALWAYS, 0, 0)
}

// costs returns what one run of it uses of fuel.
func costs(h *host, hash string, end ...string) uint64 {
	h.t.Helper()
	id, s := newID(), counting(hash, end...)
	s.RestartPolicy.PolicyType = never
	h.mustStart(s, id)
	used := h.waitFor(id, crashed).GetUsage()
	if used.GetFuel() < 3_000_000 || used.GetCpuTime().AsDuration() <= 0 || used.GetMemoryBytes() != 0 || used.GetMemoryPeakBytes() == 0 {
		h.t.Fatalf("one run has used %v", used)
	}
	return used.GetFuel()
}

func wantSpent(t *testing.T, rec *pb.Instance, restarts uint32) {
	t.Helper()
	budget := rec.GetSpec().GetFuel()
	if want := fmt.Sprintf("its fuel is used up (--fuel %d)", budget); rec.GetLastError() != want || rec.GetUsage().GetFuel() != budget || rec.GetRestarts() != restarts {
		t.Fatalf("want all %d used after %d restarts, have %v", budget, restarts, rec)
	}
}

func TestBudgetOfFuelIsOneForAllRuns(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	one := costs(h, hash, "exit", "1")
	for restarts, budget := range map[uint32]uint64{0: one - 1, 1: one, 2: 2*one + one/2} {
		id, s := newID(), counting(hash, "exit", "1")
		s.Fuel = budget
		h.mustStart(s, id)
		wantSpent(t, h.waitFor(id, crashed), restarts)
		if again, err := h.start(s, id, 1); err != nil || again.GetStatus() != crashed {
			t.Fatalf("a retry of the start found %v, %v", again, err)
		}
	}
	id, s := newID(), spec(h.push(spinsBeforeStart))
	s.Fuel = 1_000_000
	h.mustStart(s, id)
	wantSpent(t, h.query(id), 0)
}

// What a module does before it begins to run counts, also where it is ended in that.
func TestBudgetOfFuelCountsWhatDidNotBegin(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash, id := h.push(spinsBeforeStart), newID()
	s := withPolicy(spec(hash), pb.PolicyType_POLICY_TYPE_ALWAYS, 0, 0)
	s.Fuel, s.RunTimeout = 1<<62, durationpb.New(20*time.Millisecond)
	rec := &pb.Instance{InstanceId: id, Generation: 1, Spec: s, Usage: &pb.Usage{Fuel: 5}}
	i := newInstance(h.life, rec, &order{hash: modulestore.Hash(hash)}, newOutput(&h.logLimits))
	module, err := h.prepare(i)
	if err != nil {
		t.Fatal(err)
	}
	defer module.Release()
	e := h.attempt(i, module, false, 1)
	if e.began || !strings.Contains(e.why, "it ran longer than 20ms (--run-timeout)") || i.usage().GetFuel() < 1_000_000 || i.usage().GetMemoryBytes() != 0 {
		t.Fatalf("it ended with %+v, having used %v", e, i.usage())
	}
}

func TestBudgetOfFuelMovesWithTheInstance(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	one := costs(h, hash, "exit", "1")
	for used, restarts := range map[uint64]uint32{one: 1, 2 * one: 0} {
		id, s := newID(), counting(hash, "exit", "1")
		s.Fuel = 2 * one
		_, err := h.client.StartInstance(t.Context(), &pb.NodeAgentServiceStartInstanceRequest{Fence: fence, Spec: s, Orders: []*pb.StartOrder{{
			InstanceId: id, Generation: 2, MovedFrom: &pb.Instance{InstanceId: id, Generation: 1, Spec: s, Usage: &pb.Usage{Fuel: used, MemoryBytes: 1 << 20}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		wantSpent(t, h.waitFor(id, crashed), restarts)
	}
}

// The node of this one goes down amid a run, and comes back with what its journal has.
func TestBudgetOfFuelSurvivesItsNode(t *testing.T) {
	before := newHost(t, "n1", nil, func(c *Config) { c.JournalDir = t.TempDir() })
	hash := before.push(actor(t))
	id, s := newID(), counting(hash, "print", "done", "sleep", "1000000")
	one := costs(before, hash, "print", "done", "exit", "1")
	s.Fuel = one + one/2
	before.mustStart(s, id)
	before.waitForLine(id, "done")
	before.mu.Lock()
	i := before.live[id]
	before.mu.Unlock()
	before.noteUsage(i)
	if err := before.durable(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(before.cfg.JournalDir)); err != nil {
		t.Fatal(err)
	}
	after := newHost(t, "n1", nil, func(c *Config) { c.JournalDir = dir })
	after.push(actor(t))
	after.Resume(0, nil)
	wantSpent(t, after.waitFor(id, crashed), 1)
}

func TestLimitsThatNeedMeteringAreRefusedWithoutIt(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(oddlySpelled)
	h.mustStart(spec(hash), newID())
	for want, limit := range map[string]func(*pb.InstanceSpec){
		"--cpu-hard": func(s *pb.InstanceSpec) { s.CpuMillicores, s.CpuHard = 100, true },
		"--fuel":     func(s *pb.InstanceSpec) { s.Fuel = 1 },
	} {
		id, s := newID(), spec(hash)
		limit(s)
		_, err := h.start(s, id, 1)
		wantCode(t, err, rpc.InvalidRequest)
		if !strings.Contains(err.Error(), "can't be metered (section 10: function 0: a block of the type 0xc0: ") || !strings.Contains(err.Error(), want) || h.query(id) != nil {
			t.Errorf("it says %q and left %v", err, h.query(id))
		}
	}
}

// oddlySpelled is a module that can't be metered, since a block that nobody enters has a type that is spelled in two bytes.
var oddlySpelled = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // one type, func()
	"\x03\x03\x02\x00\x00" + // two functions of it
	"\x05\x03\x01\x00\x01" + // a memory of one page
	"\x07\x13\x02\x06_start\x00\x01\x06memory\x02\x00" + // exports
	"\x0a\x0b\x02\x06\x00\x02\xc0\x7f\x0b\x0b\x02\x00\x0b") // the block; nothing
