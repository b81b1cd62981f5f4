package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

// TestHammer starts, stops, moves, asks and reads at random, from many sides at once, on few ids, so
// that everything meets everything. In the end the agent must be empty and its voter know as much.
func TestHammer(t *testing.T) {
	voter := newReceiver(t)
	h := newHost(t, "n1", newElectorate(Voter{"v", voter.addr}), func(c *Config) { c.KeepRecords, c.KeepLogs = 20, 5 })
	hash := h.push(actor(t))
	var ids []string
	for range 12 {
		ids = append(ids, newID())
	}
	specs := []*pb.InstanceSpec{
		spec(hash, "sleep", "1000000"),
		spec(hash, "exit", "0"),
		spec(hash, "spin"),
		spec(hash, "flood"),
		spec(hash, "trap"),
		spec(hashOf([]byte("nowhere"))),
		withPolicy(spec(hash, "print", "x", "exit", "1"), always, 3, time.Millisecond),
	}
	expected := map[rpc.Code]bool{"": true, rpc.InstanceNotFound: true, rpc.ModuleNotFound: true, rpc.InvalidRequest: true}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				id := ids[rand.IntN(len(ids))]
				var err error
				switch rand.IntN(6) {
				case 0, 1:
					_, err = h.start(specs[rand.IntN(len(specs))], id, uint64(1+rand.IntN(50)))
				case 2:
					_, err = h.client.StopInstance(t.Context(), &pb.NodeAgentServiceStopInstanceRequest{Fence: fence, InstanceIds: []string{id}, Moved: rand.IntN(3) == 0})
				case 3:
					_, err = h.client.QueryInstance(t.Context(), &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: id})
				case 4:
					var list pb.NodeAgentService_ListInstancesClient
					if list, err = h.client.ListInstances(t.Context(), &pb.NodeAgentServiceListInstancesRequest{}); err == nil {
						_, err = list.Recv()
					}
				case 5:
					follow, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
					logs, err := h.client.StreamLogs(follow, &pb.StreamLogsRequest{InstanceId: id, Follow: true})
					for err == nil {
						_, err = logs.Recv()
					}
					end()
				}
				if !expected[rpc.CodeOf(err)] {
					t.Errorf("unexpected: %v", err)
				}
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		h.stopOne(id, false)
	}
	if l := h.facts.load(); l != (load{}) {
		t.Fatalf("the load is %+v", l)
	}
	for _, rec := range h.facts.fullPage() {
		if fact.Live(rec.GetStatus()) {
			t.Fatalf("it is live: %v", rec)
		}
	}
	voter.wantEqual(t, h.facts)
}

func TestThousandStartsInOneOrder(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	req := &pb.NodeAgentServiceStartInstanceRequest{Fence: fence, Spec: spec(hash, "sleep", "1000000")}
	for range 1000 {
		req.Orders = append(req.Orders, &pb.StartOrder{InstanceId: newID(), Generation: 1})
	}
	began := time.Now()
	resp, err := h.client.StartInstance(t.Context(), req)
	if err != nil || len(resp.GetInstances()) != 1000 {
		t.Fatalf("%d started, %v", len(resp.GetInstances()), err)
	}
	t.Logf("1000 instances in %s", time.Since(began))
	for n, rec := range resp.GetInstances() {
		if rec.GetInstanceId() != req.GetOrders()[n].GetInstanceId() || rec.GetStatus() != isRunning {
			t.Fatalf("answer %d is %v", n, rec)
		}
	}
	req.Orders = append(req.Orders, &pb.StartOrder{InstanceId: newID()})
	_, err = h.client.StartInstance(t.Context(), req)
	wantCode(t, err, rpc.InvalidRequest)
}

func TestOrderlyExitStopsEverythingAndTellsTheVoters(t *testing.T) {
	voter := newReceiver(t)
	h := newHost(t, "n1", newElectorate(Voter{"v", voter.addr}), nil)
	hash := h.push(actor(t))
	for _, args := range [][]string{{"sleep", "1000000"}, {"spin"}, {"flood"}} {
		h.mustStart(spec(hash, args...), newID())
	}
	h.mustStart(withPolicy(spec(hash, "exit", "1"), always, 0, time.Minute), newID())
	voter.wantEqual(t, h.facts)
	h.StopAll(t.Context())
	voter.with(func() {
		if d := voter.known.differs(h.facts); d != "" {
			t.Error(d)
		}
	})
	if c := h.Counts(); c[isStopped] != 3 || c[restarting] != 1 || len(c) != 2 {
		t.Fatalf("%v, want 3 stopped and the one whose policy is always to run again", c)
	}
	_, err := h.start(spec(hash), newID(), 1)
	wantCode(t, err, rpc.CommunicationFailure)
}

func TestNothingIsLeftAfterRun(t *testing.T) {
	engine, err := wasm.New(t.Context(), wasm.Config{CacheDir: compiled()})
	if err != nil {
		t.Fatal(err)
	}
	store, err := modulestore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	peers := rpc.NewPeers()
	module := actor(t)
	put(t, store, module)
	slow := newModuleServer(t, module)
	slow.hang()

	// The engine's own goroutines, and those of a connection, are there before.
	a, err := New(Config{NodeID: "n", NodeName: "n"}, engine, store, peers, newElectorate(Voter{"v", slow.addr}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	for _, s := range []*pb.InstanceSpec{
		spec(hashOf(module), "sleep", "1000000"),
		spec(hashOf(module), "spin"),
		withPolicy(spec(hashOf(module), "exit", "1"), always, 0, time.Minute),
		spec(hashOf(append(module, 0))), // fetched for ever
	} {
		_, err := a.admitAll(&pb.NodeAgentServiceStartInstanceRequest{
			Fence: fence, Spec: s, Orders: []*pb.StartOrder{{InstanceId: newID()}},
		}, &order{hash: modulestore.Hash(s.GetModuleHash()), cause: t.Context()})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two that run and one that waits", func() error {
		if c := a.Counts(); c[isRunning] != 2 || c[restarting] != 1 {
			return fmt.Errorf("%v", c)
		}
		return nil
	})
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if c := a.Counts(); c[isStopped] != 2 || c[restarting] != 1 || len(c) != 2 {
		t.Fatalf("%v, want 2 stopped, the one whose policy is always to run again, and nothing of the one that never started", c)
	}
	if err := errors.Join(peers.Close(), engine.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of all goroutines of this room", func() error {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for _, what := range []string{"agent.(*Agent).supervise", "agent.(*fetcher)", "agent.(*reportStream)"} {
			if n := bytes.Count(stacks, []byte(what)); n > 0 {
				return fmt.Errorf("%d times %s", n, what)
			}
		}
		return nil
	})
}

// TestRestartsFollowTheClock runs a guest that always fails for an hour of the bubble's time.
func TestRestartsFollowTheClock(t *testing.T) {
	path := actor(t)
	synctest.Test(t, func(t *testing.T) {
		engine, err := wasm.New(t.Context(), wasm.Config{CacheDir: compiled()})
		if err != nil {
			t.Fatal(err)
		}
		store, err := modulestore.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		put(t, store, path)
		a, err := New(Config{NodeID: "n", NodeName: "n"}, engine, store, rpc.NewPeers(), newElectorate())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		id := newID()
		if _, err := a.startInstances(t.Context(), &pb.NodeAgentServiceStartInstanceRequest{
			Fence: fence, Spec: withPolicy(spec(hashOf(path), "exit", "1"), onFailure, 0, time.Second), Orders: []*pb.StartOrder{{InstanceId: id}},
		}); err != nil {
			t.Fatal(err)
		}
		// 1+2+4+8+16+32 = 63 s, then 60 s each; a fifth less at the most.
		time.Sleep(time.Hour)
		synctest.Wait()
		rec := a.facts.get(id)
		if n := rec.GetRestarts(); n < 6+58 || n > 6+74 {
			t.Errorf("%d restarts in an hour", n)
		}
		if wait := rec.GetRestartAt().AsTime().Sub(rec.GetFinishedAt().AsTime()); wait < 48*time.Second || wait > time.Minute+time.Millisecond {
			t.Errorf("the last wait is %s", wait)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func put(t *testing.T, store *modulestore.Store, module []byte) {
	t.Helper()
	in, err := store.Receive(modulestore.Hash(hashOf(module)), int64(len(module)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = in.Write(module)
	if err := errors.Join(err, in.Commit(), in.Close()); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkIdleInstance measures what one more instance that sleeps takes, in all.
func BenchmarkIdleInstance(b *testing.B) {
	h := newHost(b, "n1", nil, func(c *Config) { c.MaxInstances = 1 << 20 })
	hash := h.push(actor(b))
	before := taken()
	for n := 0; n < b.N; n += maxOrders {
		req := &pb.NodeAgentServiceStartInstanceRequest{Fence: fence, Spec: spec(hash, "sleep", "1000000")}
		for range min(maxOrders, b.N-n) {
			req.Orders = append(req.Orders, &pb.StartOrder{InstanceId: newID(), Generation: 1})
		}
		if resp, err := h.client.StartInstance(b.Context(), req); err != nil || len(resp.GetFailures()) > 0 {
			b.Fatal(err, resp.GetFailures())
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(taken()-before)/float64(b.N), "heap+stack-B/instance")
}

func taken() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
