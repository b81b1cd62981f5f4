package agent

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// soon is for how long the hosts of these tests keep modules.
const soon = 400 * time.Millisecond

func keepSoon(c *Config) { c.KeepModules = soon }

// hears tells the host once what is referenced, and returns what it holds then.
func (h *host) hears(complete bool, referenced ...string) []*pb.Module {
	h.t.Helper()
	resp, err := h.modules.KeepModules(h.t.Context(), &pb.KeepModulesRequest{Fence: fence, ModuleHashes: referenced, Complete: complete})
	if err != nil {
		h.t.Fatalf("keep: %v", err)
	}
	return resp.GetModules()
}

// hearsFor tells the host for a while, as a leader would, and stops early once it holds nothing.
func (h *host) hearsFor(d time.Duration, complete bool, referenced ...string) (held int) {
	h.t.Helper()
	tick := time.NewTicker(soon / 40)
	defer tick.Stop()
	held = -1
	for end := time.Now().Add(d); held != 0 && time.Now().Before(end); <-tick.C {
		held = len(h.hears(complete, referenced...))
	}
	return held
}

func (h *host) drop(hash string) (bool, error) {
	resp, err := h.modules.DropModule(h.t.Context(), &pb.DropModuleRequest{Fence: fence, ModuleHash: hash})
	return resp.GetDropped(), err
}

func TestUnreferencedModuleIsDeletedAfterItsTime(t *testing.T) {
	h := newHost(t, "n1", nil, keepSoon)
	h.push(actor(t))
	began := time.Now()
	if held := h.hearsFor(20*time.Second, true); held != 0 {
		t.Fatalf("it holds %d modules", held)
	}
	if took := time.Since(began); took < soon {
		t.Fatalf("deleted after %s", took)
	}
}

func TestReferencedModuleStays(t *testing.T) {
	module := actor(t)
	for name, prepare := range map[string]func(h *host){
		"by a live instance here": func(h *host) { h.mustStart(spec(hashOf(module), "sleep", "1000000"), newID()) },
		"by an ended one here": func(h *host) {
			h.waitFor(h.mustStart(spec(hashOf(module), "exit", "0"), newID()).GetInstanceId(), isStopped)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "n1", nil, keepSoon)
			h.push(module)
			prepare(h)
			if held := h.hearsFor(3*soon, true); held != 1 {
				t.Fatalf("it holds %d modules", held)
			}
			_, err := h.drop(hashOf(module))
			wantCode(t, err, rpc.InvalidRequest)
			if !strings.Contains(err.Error(), "in use on node n1") {
				t.Fatal(err)
			}
		})
	}
	t.Run("by instances elsewhere", func(t *testing.T) {
		h := newHost(t, "n1", nil, keepSoon)
		h.push(module)
		if held := h.hearsFor(3*soon, true, hashOf(module)); held != 1 {
			t.Fatalf("it holds %d modules", held)
		}
	})
}

func TestNothingIsDeletedWithoutALeaderThatKnowsAll(t *testing.T) {
	h := newHost(t, "n1", nil, keepSoon)
	h.push(actor(t))
	if held := h.hearsFor(3*soon, false); held != 1 {
		t.Fatalf("after incomplete words it holds %d modules", held)
	}
	h.hears(true)
	timer := time.NewTimer(3 * soon) // nobody leads
	defer timer.Stop()
	<-timer.C
	if held := len(h.hears(true)); held != 1 {
		t.Fatalf("after the first word it holds %d modules", held)
	}
}

func TestModuleOrdersOfAnOldLeaderAreRefused(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	h.hears(true)
	old := &pb.Fence{Term: 0, LeaderId: "old"}
	_, err := h.modules.KeepModules(t.Context(), &pb.KeepModulesRequest{Fence: old, Complete: true})
	wantCode(t, err, rpc.StaleLeader)
	_, err = h.modules.EnsureModule(t.Context(), &pb.EnsureModuleRequest{Fence: old, ModuleHash: hash})
	wantCode(t, err, rpc.StaleLeader)
	_, err = h.modules.DropModule(t.Context(), &pb.DropModuleRequest{Fence: old, ModuleHash: hash})
	wantCode(t, err, rpc.StaleLeader)
	_, err = h.modules.DropModule(t.Context(), &pb.DropModuleRequest{ModuleHash: hash})
	wantCode(t, err, rpc.InvalidRequest)
}

func TestModuleIsFetchedAndDroppedByOrder(t *testing.T) {
	peer := newModuleServer(t, actor(t))
	h := newHost(t, "n1", nil, nil)
	hash := hashOf(peer.module)
	ensure := &pb.EnsureModuleRequest{Fence: fence, ModuleHash: hash, Sources: []*pb.ModuleSource{peer.source()}}
	for range 2 { // the second finds it there
		if _, err := h.modules.EnsureModule(t.Context(), ensure); err != nil {
			t.Fatal(err)
		}
	}
	if len(peer.offsets) != 1 || len(h.hears(true)) != 1 {
		t.Fatalf("fetched %d times, %v is held", len(peer.offsets), h.hears(true))
	}
	for _, want := range []bool{true, false} {
		if dropped, err := h.drop(hash); err != nil || dropped != want {
			t.Fatalf("dropped %v, %v, want %v", dropped, err, want)
		}
	}
	if held := h.hears(true); len(held) != 0 {
		t.Fatalf("it holds %v", held)
	}
}

// A start that meets the deletion of its module wins, or has the module fetched again.
func TestHammerStartsAgainstDeletion(t *testing.T) {
	voter := newHost(t, "voter", nil, nil)
	hash := voter.push(actor(t))
	h := newHost(t, "n1", newElectorate(Voter{"voter", voter.addr}), func(c *Config) { c.KeepModules = 8 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var starts, drops sync.WaitGroup
	for range 4 {
		starts.Go(func() {
			for ctx.Err() == nil {
				id := newID()
				rec, err := h.start(spec(hash, "sleep", "1000000"), id, 1)
				if err != nil {
					t.Errorf("start: %v", err)
					return
				}
				if _, held := h.store.Has(modulestore.Hash(hash)); !held || rec.GetStatus() != isRunning {
					t.Errorf("it is %v, and its module is held: %v", rec.GetStatus(), held)
				}
				h.stopOne(id, true) // and nothing of it stays
			}
		})
	}
	gone := 0
	drops.Go(func() {
		for ctx.Err() == nil {
			held := len(h.hears(true))
			dropped, err := h.drop(hash)
			if err != nil && rpc.CodeOf(err) != rpc.InvalidRequest {
				t.Errorf("drop: %v", err)
			}
			if held == 0 || dropped {
				gone++
			}
		}
	})
	starts.Wait()
	drops.Wait()
	if gone == 0 {
		t.Fatal("nothing was ever deleted: the test proves nothing")
	}
	t.Logf("found gone or dropped %d times", gone)
}
