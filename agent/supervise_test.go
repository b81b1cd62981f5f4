package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/internal/guest"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func TestInstanceRunsFromOrderToStop(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	rec := h.mustStart(spec(hash, "sleep", "100000"), id)
	if rec.GetStatus() != isRunning || rec.GetNodeId() != "n1" || rec.GetStartedAt() == nil || rec.GetDurability() != pb.Durability_DURABILITY_LOCAL {
		t.Fatalf("the answer is %v", rec)
	}
	rec = h.stopOne(id, false)
	if rec.GetStatus() != isStopped || rec.GetFinishedAt() == nil || rec.GetLastError() != "" {
		t.Fatalf("after the stop: %v", rec)
	}
	if again := h.stopOne(id, false); again.GetRevision() != rec.GetRevision() {
		t.Fatalf("a second stop made %v of %v", again, rec)
	}
	if late := h.mustStart(spec(hash, "sleep", "100000"), id); late.GetStatus() != isStopped {
		t.Fatalf("a late order started it again: %v", late)
	}
	if got := h.events(id); !slices.Equal(got, []string{eventStarted, eventStopped}) {
		t.Fatalf("events are %v", got)
	}
	if h.stopOne(newID(), false) != nil {
		t.Fatal("an unknown instance has a record after its stop")
	}
}

func TestEndsAreRecordedInWordsAndNumbers(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	for _, c := range []struct {
		args    []string
		status  pb.InstanceStatus
		code    int32
		noCode  bool
		problem string
		event   string
	}{
		{[]string{}, isStopped, 0, false, "", eventStopped},
		{[]string{"exit", "0"}, isStopped, 0, false, "", eventStopped},
		{[]string{"exit", "3"}, crashed, 3, false, "exit code 3", eventCrashed},
		{[]string{"trap"}, crashed, 0, true, "unreachable", eventCrashed},
		{[]string{"eat"}, crashed, 9, false, "exit code 9", eventCrashed},
	} {
		id := newID()
		h.mustStart(spec(hash, c.args...), id)
		rec := h.waitFor(id, c.status)
		if (rec.ExitCode == nil) != c.noCode || rec.GetExitCode() != c.code || !strings.Contains(rec.GetLastError(), c.problem) || (c.problem == "") != (rec.GetLastError() == "") {
			t.Errorf("after %v: %v", c.args, rec)
		}
		if got := h.events(id); !slices.Equal(got, []string{eventStarted, c.event}) {
			t.Errorf("after %v: events %v", c.args, got)
		}
	}
}

func TestCrashLoopCostsItsBackoffAndEnds(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	began := time.Now()
	h.mustStart(withPolicy(spec(hash, "exit", "4"), onFailure, 2, 100*time.Millisecond), id)
	rec := h.waitFor(id, crashed)
	if rec.GetRestarts() != 2 || rec.GetExitCode() != 4 || !strings.Contains(rec.GetLastError(), "given up after 2 restarts") {
		t.Fatalf("in the end: %v", rec)
	}
	if took := time.Since(began); took < 240*time.Millisecond { // 100 and 200 ms, less a fifth
		t.Fatalf("two restarts took %s", took)
	}
	want := []string{eventStarted, eventCrashed, eventRestarted, eventCrashed, eventRestarted, eventCrashed}
	if got := h.events(id); !slices.Equal(got, want) {
		t.Fatalf("events are %v, want %v", got, want)
	}
}

func TestAlwaysRestartsAfterSuccess(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	h.mustStart(withPolicy(spec(hash, "exit", "0"), always, 1, 100*time.Millisecond), id)
	rec := h.waitFor(id, isStopped)
	if rec.GetRestarts() != 1 || rec.GetLastError() != "" {
		t.Fatalf("in the end: %v", rec)
	}
}

func TestStopWorksAtEachStage(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	module := actor(t)
	hash := h.push(module)
	hanging := newModuleServer(t, module)
	hanging.hang()
	for _, c := range []struct {
		name    string
		spec    *pb.InstanceSpec
		reached pb.InstanceStatus
	}{
		{"fetching", spec(hashOf([]byte("elsewhere")), "exit", "0"), starting},
		{"instantiating", spec(h.push(spinsBeforeStart)), starting},
		{"sleeping", spec(hash, "sleep", "1000000"), isRunning},
		{"spinning", spec(hash, "spin"), isRunning},
		{"flooding", spec(hash, "flood"), isRunning},
		{"waiting for its backoff", withPolicy(spec(hash, "exit", "1"), always, 0, time.Minute), restarting},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := newID()
			var asked sync.WaitGroup
			asked.Go(func() {
				rec, err := h.start(c.spec, id, 1, hanging.source())
				if err != nil {
					t.Errorf("start: %v", err)
				} else if c.reached == starting && rec.GetStatus() != isStopped {
					t.Errorf("the start of what was stopped answers %v", rec)
				}
			})
			h.waitFor(id, c.reached)
			rec := h.stopOne(id, false)
			asked.Wait()
			if rec.GetStatus() != isStopped || rec.GetRestartAt() != nil {
				t.Fatalf("after the stop: %v", rec)
			}
			if late, err := h.start(c.spec, id, 1); err != nil || late.GetStatus() != isStopped {
				t.Fatalf("a late order: %v, %v", late, err)
			}
		})
	}
	if l := h.Load(); l.GetInstances() != 0 || l.GetCommittedMemoryBytes() != 0 {
		t.Fatalf("the load is %v", l)
	}
}

// spinsBeforeStart is a module whose start section, which runs before any function that is called,
// never ends.
var spinsBeforeStart = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // one type, func()
	"\x03\x03\x02\x00\x00" + // two functions of it
	"\x05\x03\x01\x00\x01" + // a memory of one page
	"\x07\x13\x02\x06_start\x00\x01\x06memory\x02\x00" + // exports
	"\x08\x01\x00" + // the first function is the start section
	"\x0a\x0c\x02\x07\x00\x03\x40\x0c\x00\x0b\x0b\x02\x00\x0b") // loop br 0 end; nothing

func TestStartSectionThatDoesNotEndIsGivenUp(t *testing.T) {
	t.Parallel() // it takes its time, and little else
	h := newHost(t, "n1", nil, nil)
	id := newID()
	_, err := h.start(spec(h.push(spinsBeforeStart)), id, 1)
	wantCode(t, err, rpc.Timeout)
	if !strings.Contains(err.Error(), "start section") || h.query(id) != nil {
		t.Fatalf("it says %q and left %v", err, h.query(id))
	}
}

func TestLargeGuestRunsAndPanicsInWords(t *testing.T) {
	t.Parallel() // it takes its time, and little else
	h := newHost(t, "n1", nil, nil)
	module, err := os.ReadFile(guest.Go(t, filepath.Join("testdata", "panics")))
	if err != nil {
		t.Fatal(err)
	}
	id := newID()
	s := spec(h.push(module), "now")
	s.MemoryLimitBytes = 64 << 20
	h.mustStart(s, id)
	if rec := h.waitFor(id, crashed); rec.GetExitCode() != 2 || rec.GetLastError() != "exit code 2" {
		t.Fatalf("after a panic: %v", rec)
	}
	got := h.logs(&pb.StreamLogsRequest{InstanceId: id})
	if len(got) < 2 || got[0] != "stdout panics now" || got[1] != "stderr panic: as asked" {
		t.Fatalf("the output is %q", got)
	}
}

func TestDamagedModuleIsFetchedAgain(t *testing.T) {
	peer := newModuleServer(t, actor(t))
	h := newHost(t, "n1", nil, nil)
	module := append(slices.Clone(peer.module), customSection([]byte("compiled by nobody before "+newID()))...)
	peer.module = module
	hash := h.push(module)
	h.damage(hash)
	if _, err := h.start(spec(hash, "exit", "0"), newID(), 1, peer.source()); err != nil {
		t.Fatal(err)
	}
	if len(peer.offsets) != 1 {
		t.Fatalf("it was fetched %d times", len(peer.offsets))
	}
}

func TestStartIsIdempotentByIDAndGeneration(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	s := spec(hash, "sleep", "1000000")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if rec, err := h.start(s, id, 2); err != nil || rec.GetStatus() != isRunning {
				t.Errorf("one of many equal orders: %v, %v", rec, err)
			}
		})
	}
	all.Wait()
	first := h.query(id)
	if h.Load().GetInstances() != 1 || first.GetRevision() != 2 {
		t.Fatalf("load %v, record %v", h.Load(), first)
	}
	if rec, err := h.start(s, id, 1); err != nil || rec.GetGeneration() != 2 {
		t.Fatalf("an order of a lower generation: %v, %v", rec, err)
	}
	rec, err := h.start(s, id, 3)
	if err != nil || rec.GetGeneration() != 3 || rec.GetStatus() != isRunning {
		t.Fatalf("an order of a higher generation: %v, %v", rec, err)
	}
	if h.Load().GetInstances() != 1 {
		t.Fatalf("the load is %v", h.Load())
	}
	h.stopOne(id, false)
	if rec, err := h.start(s, id, 4); err != nil || rec.GetStatus() != isRunning {
		t.Fatalf("a higher generation after the stop: %v, %v", rec, err)
	}
}

func TestGenerationsOfAnInstanceNeverRunTogether(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	s := spec(h.push(actor(t)), "sleep", "1000000")
	id := newID()
	h.mustStart(s, id)
	h.mu.Lock()
	first := h.live[id]
	h.mu.Unlock()
	first.out.mu.Lock() // keeps the first from ending
	var asked sync.WaitGroup
	asked.Go(func() {
		if rec, err := h.start(s, id, 2); err != nil || rec.GetStatus() != isRunning {
			t.Errorf("the second generation: %v, %v", rec, err)
		}
	})
	<-first.ctx.Done()
	h.mu.Lock()
	second := h.live[id]
	h.mu.Unlock()
	select {
	case <-second.left:
		t.Error("the second runs before the first has ended")
	case <-time.After(100 * time.Millisecond):
	}
	first.out.mu.Unlock()
	asked.Wait()
	if rec := h.query(id); rec.GetGeneration() != 2 || rec.GetStatus() != isRunning {
		t.Fatalf("in the end: %v", rec)
	}
}

func TestMovedInstanceIsForgottenAndComesBackOnlyInALaterGeneration(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	for _, alive := range []bool{true, false} {
		id := newID()
		s := spec(hash, "sleep", "1000000")
		if alive {
			h.mustStart(s, id)
			if rec := h.stopOne(id, true); rec.GetStatus() != isStopped {
				t.Fatalf("the stop answers %v", rec)
			}
		} else {
			h.mustStart(spec(hash, "exit", "3"), id)
			h.waitFor(id, crashed)
			h.stopOne(id, true)
		}
		if rec := h.query(id); rec != nil {
			t.Fatalf("it is still known: %v", rec)
		}
		_, err := h.start(s, id, 1)
		wantCode(t, err, rpc.InvalidRequest)
		old := &pb.Instance{Restarts: 7, CreatedAt: fixedTime, LastError: "exit code 1"}
		resp, err := h.client.StartInstance(t.Context(), &pb.NodeAgentServiceStartInstanceRequest{
			Fence: fence, Spec: s, Orders: []*pb.StartOrder{{InstanceId: id, Generation: 2, MovedFrom: old}},
		})
		if err != nil || len(resp.GetInstances()) != 1 {
			t.Fatalf("the return: %v, %v", resp, err)
		}
		if rec := resp.GetInstances()[0]; rec.GetRestarts() != 7 || !rec.GetCreatedAt().AsTime().Equal(fixedTime.AsTime()) || rec.GetGeneration() != 2 {
			t.Fatalf("what moved lost its past: %v", rec)
		}
		late, err := h.client.StopInstance(t.Context(), &pb.NodeAgentServiceStopInstanceRequest{
			Fence: fence, InstanceIds: []string{id}, Generations: []uint64{1}, Moved: true,
		})
		if err != nil || len(late.GetInstances()) > 0 {
			t.Fatalf("a late order to forget its earlier generation is answered with %v, %v", late, err)
		}
		if rec := h.query(id); rec.GetStatus() != isRunning {
			t.Fatalf("after a late order to forget its earlier generation it is %v", rec)
		}
	}
}

// A stop that nobody was answered may be unknown to the leader that moves the instance: it is told by the record.
func TestStoppedInstanceIsNotForgottenForACopyElsewhere(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	h.mustStart(spec(hash, "sleep", "1000000"), id)
	h.stopOne(id, false)
	if rec := h.stopOne(id, true); rec.GetStatus() != isStopped {
		t.Fatalf("the order to forget it is answered with %v", rec)
	}
	if rec := h.query(id); rec.GetStatus() != isStopped {
		t.Fatalf("after the order to forget it, it is %v", rec)
	}

	id = newID()
	h.mustStart(spec(hash, "sleep", "1000000"), id)
	h.mu.Lock()
	h.stopLocked(id, false, errStopped) // both at once, while its guest has not ended yet
	h.stopLocked(id, true, errStopped)
	h.mu.Unlock()
	h.waitFor(id, isStopped)
	if rec := h.query(id); rec.GetStatus() != isStopped {
		t.Fatalf("after a stop and an order to forget it, it is %v", rec)
	}
}

func TestRefusedStartLeavesNoRecord(t *testing.T) {
	h := newHost(t, "n1", nil, func(c *Config) { c.MaxInstances, c.MaxMemory = 3, 10<<20 })
	hash := h.push(actor(t))
	tight := spec(hash)
	tight.MemoryLimitBytes = 64 << 10
	huge := spec(hash)
	huge.MemoryLimitBytes = 11 << 20
	for _, c := range []struct {
		name string
		spec *pb.InstanceSpec
		want rpc.Code
		says string
	}{
		{"no such module", spec(hashOf([]byte("nowhere"))), rpc.ModuleNotFound, "push"},
		{"less memory than it needs", tight, rpc.InvalidRequest, "memory"},
		{"more memory than there is", huge, rpc.ResourceExhausted, "10485760"},
	} {
		id := newID()
		_, err := h.start(c.spec, id, 1)
		wantCode(t, err, c.want)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q does not say %q", c.name, err, c.says)
		}
		if rec := h.query(id); rec != nil {
			t.Errorf("%s: left %v", c.name, rec)
		}
		if _, err := h.start(c.spec, id, 1); rpc.CodeOf(err) != c.want {
			t.Errorf("%s: a retry got %v", c.name, err)
		}
	}
	h.mu.Lock()
	if len(h.live) > 0 || len(h.outputs) > 0 {
		t.Errorf("left %d instances and %d outputs", len(h.live), len(h.outputs))
	}
	h.mu.Unlock()
	for _, s := range []*pb.InstanceSpec{nil, {}, {Name: "x", ModuleHash: "md5:1"}} {
		_, err := h.start(s, newID(), 1)
		wantCode(t, err, rpc.InvalidRequest)
	}
	_, err := h.start(spec(hash), "not-a-uuid", 1)
	wantCode(t, err, rpc.InvalidRequest)
}

func TestOrdersOfADeposedLeaderAreRefused(t *testing.T) {
	told := make(chan Leader, 10)
	h := newHost(t, "n1", nil, func(c *Config) {
		c.OnLeader = func(id, addr string, term uint64) { told <- Leader{id, addr, term} }
	})
	hash := h.push(actor(t))
	id := newID()
	h.mustStart(spec(hash, "sleep", "1000000"), id)
	if got := <-told; got != (Leader{"leader", "127.0.0.1:1", 1}) {
		t.Fatalf("was told of %v", got)
	}
	newer := &pb.Fence{Term: 5, LeaderId: "newer", LeaderAddr: "127.0.0.1:2"}
	list, err := h.client.ListInstances(t.Context(), &pb.NodeAgentServiceListInstancesRequest{Fence: newer})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := list.Recv(); err != nil || len(m.GetInstances()) != 1 || m.GetLoad().GetInstances() != 1 {
		t.Fatalf("the list is %v, %v", m, err)
	}
	if got := <-told; got != (Leader{"newer", "127.0.0.1:2", 5}) || h.Leader() != got || h.Term() != 5 {
		t.Fatalf("was told of %v, has %v", got, h.Leader())
	}
	_, err = h.client.StopInstance(t.Context(), &pb.NodeAgentServiceStopInstanceRequest{Fence: fence, InstanceIds: []string{id}})
	wantCode(t, err, rpc.StaleLeader)
	if d := rpc.FromError(err).Details; d["term_seen"] != "5" || d["term_got"] != "1" {
		t.Fatalf("the details are %v", d)
	}
	_, err = h.start(spec(hash), newID(), 1)
	wantCode(t, err, rpc.StaleLeader)
	_, err = h.client.StopInstance(t.Context(), &pb.NodeAgentServiceStopInstanceRequest{InstanceIds: []string{id}})
	wantCode(t, err, rpc.InvalidRequest)
	if rec := h.query(id); rec.GetStatus() != isRunning {
		t.Fatalf("a refused order changed it: %v", rec)
	}
}

func TestListAnswersUnchangedToWhoHasItAll(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	for range 3 {
		h.mustStart(spec(hash, "sleep", "1000000"), newID())
	}
	list := func(boot string, seq uint64) *pb.NodeAgentServiceListInstancesResponse {
		t.Helper()
		stream, err := h.client.ListInstances(t.Context(), &pb.NodeAgentServiceListInstancesRequest{HaveBootId: boot, HaveSeq: seq})
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	all := list("", 0)
	if all.GetUnchanged() || len(all.GetInstances()) != 3 || all.GetBootId() != h.BootID() {
		t.Fatalf("the list is %v", all)
	}
	if m := list(all.GetBootId(), all.GetSeq()); !m.GetUnchanged() || len(m.GetInstances()) != 0 {
		t.Fatalf("to who has it all: %v", m)
	}
	if m := list(all.GetBootId(), all.GetSeq()-1); m.GetUnchanged() {
		t.Fatalf("to who is behind: %v", m)
	}
	if h.Term() != 0 && h.Term() != fence.GetTerm() {
		t.Fatalf("who only looks raised the term to %d", h.Term())
	}
}
