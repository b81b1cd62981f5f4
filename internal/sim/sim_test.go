package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/chaos"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

var (
	seed = flag.Uint64("sim.seed", 0, "the seed of the first schedule; 0 draws one")
	runs = flag.Int("sim.runs", 0, "how many schedules, of seeds that follow each other; 0 leaves them out, or is 1 with -sim.seed")
	logs = flag.Bool("sim.log", false, "show what the nodes log, and what they are asked")
)

// faults are those that are simulated. Seeds rely on their order.
var faults = []chaos.Kind{
	chaos.CutHalves, chaos.CutOne, chaos.CutLeader, chaos.CutOneWay, chaos.CutPairs, chaos.Kill, chaos.Pause, chaos.PowerLoss,
}

// shapeOf is what a seed makes of a schedule beside its faults.
func shapeOf(seed uint64) chaos.Shape {
	random := rand.New(rand.NewPCG(seed, 0x5a9e))
	return chaos.Shape{
		Nodes: 3 + random.IntN(3), Rounds: 2, Strike: 12 * time.Second, LongestPause: 20 * time.Second, Faults: faults,
	}
}

// plant is what stands in front of what nodes serve.
type plant func(node string, req any, serve func() (any, error)) (any, error)

// run runs the schedule of a seed, and returns what it found, with what happened.
func run(t *testing.T, seed uint64, planted plant) (found []chaos.Violation, history []chaos.Event) {
	t.Helper()
	// With one processor, goroutines that are due at the same instant run in much the same order each time.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &Sim{Seed: seed, Shape: shapeOf(seed), Clients: 3, Dir: dir, Plant: planted}
		if *logs {
			s.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		var err error
		if found, err = s.Run(t.Context()); err != nil {
			t.Errorf("-sim.seed %d: %v", seed, err)
		}
		history = s.history.Events()
	})
	return found, history
}

// check runs the schedule of a seed, and says what it found and how to have it again.
func check(t *testing.T, seed uint64) {
	t.Helper()
	found, history := run(t, seed, nil)
	if len(found) == 0 {
		return
	}
	var b strings.Builder
	for _, v := range found {
		fmt.Fprintf(&b, "%s\n", v)
	}
	about := func(e chaos.Event) bool {
		return e.Fault != nil || slices.ContainsFunc(found, func(v chaos.Violation) bool { return v.Instance == e.Instance && v.Instance != "" })
	}
	for _, e := range history {
		if !about(e) {
			continue
		}
		fmt.Fprintf(&b, "  %s %s %s %s", e.Time.Format("04:05.000"), e.What, e.Phase, e.Instance)
		if e.Fault != nil {
			fmt.Fprintf(&b, " %s striking %s", e.Fault, e.Nodes)
		}
		fmt.Fprintf(&b, " %s\n", e.Error)
	}
	t.Errorf("make sim SIM_SEED=%d SIM_RUNS=1 SIM_FLAGS=-sim.log has it again:\n%s", seed, b.String())
}

// What `make test` runs: schedules that are the same each time.
func TestSchedulesLeaveNothingLostOrDouble(t *testing.T) {
	if *runs > 0 || *seed > 0 {
		t.Skip("others were asked for")
	}
	for seed := uint64(101); seed <= 104; seed++ {
		check(t, seed)
	}
}

// What `make sim` runs.
func TestManySchedulesLeaveNothingLostOrDouble(t *testing.T) {
	if *runs == 0 && *seed == 0 {
		t.Skip("it takes -sim.runs or -sim.seed")
	}
	first := *seed
	if first == 0 {
		first = rand.Uint64N(1 << 32) // short enough to be typed
	}
	began := time.Now()
	for n := range uint64(max(*runs, 1)) {
		t.Run(fmt.Sprint("seed ", first+n), func(t *testing.T) { check(t, first+n) })
	}
	t.Logf("%d schedules from -sim.seed %d in %s", max(*runs, 1), first, time.Since(began).Round(time.Millisecond))
}

// Schedules that found something once. A change of what is simulated makes others of them, which do no harm; each bug has a test of
// its own beside its fix, too.
func TestSeedsThatFoundSomething(t *testing.T) {
	if *runs > 0 || *seed > 0 {
		t.Skip("others were asked for")
	}
	for _, s := range []struct {
		seed uint64
		what string
	}{
		{2219, "a voter's copy of a node left out what ran elsewhere with better right, so a new leader never stopped it"},
		{1118, "a leader that had been frozen, and deposed meanwhile, acknowledged a stop of what the next one had moved"},
		{2133, "a drain moved what had been stopped, as its leader had not heard the node and knew only of old"},
		{2149, "the order of a move that was not answered arrived after a stop"},
		{1145, "all lost their power amid a move; the old place came back first and was stopped, then the new one with a higher generation"},
		{5107, "a start that was not answered had been carried out on the far side of a cut, and came back after the stop"},
		{9097, "the same, on a node that was declared lost: what ran elsewhere by then was started once more"},
		{8548169, "what had been moved off a node and back was stopped there, as a double of the first move"},
		{1030105837108, "a stop that was not answered had been carried out; a move away, by a leader that had not heard of it, had it forgotten"},
		{1040986810225, "what was being moved to a node that was lost became an orphan, was started once more, and ran on where it was"},
		{733551940189, "the order of a move was answered by a node that had been declared lost, so the old place was ended for a copy that was dropped"},
		{1668120404039, "a returned node was told to drop what was only about to be started elsewhere, which came to nothing"},
	} {
		t.Run(fmt.Sprint("seed ", s.seed), func(t *testing.T) {
			check(t, s.seed)
			if t.Failed() {
				t.Log("it had found once: ", s.what)
			}
		})
	}
}

// A simulation that finds nothing has to show that it could.
func TestPlantedBugsAreFound(t *testing.T) {
	if *runs > 0 || *seed > 0 {
		t.Skip("others were asked for")
	}
	for name, bug := range map[string]struct {
		planted plant
		promise string
	}{
		"an agent says that it has stopped what runs on": {dropsAStop, chaos.Resurrected},
		"an agent does not stop what was moved":          {keepsWhatMoved, chaos.Double},
		"an agent says that it runs what it does not":    {startsNothing, chaos.Lost},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed < 20; seed++ {
				found, _ := run(t, seed, bug.planted)
				if slices.ContainsFunc(found, func(v chaos.Violation) bool { return v.Promise == bug.promise }) {
					t.Logf("seed %d found %v", seed, found[0])
					return
				}
			}
			t.Fatal("20 schedules have not found it")
		})
	}
}

func dropsAStop(node string, req any, serve func() (any, error)) (any, error) {
	stop, yes := req.(*pb.NodeAgentServiceStopInstanceRequest)
	if !yes || stop.GetMoved() || node != "n2" {
		return serve()
	}
	resp := &pb.NodeAgentServiceStopInstanceResponse{}
	for n, id := range stop.GetInstanceIds() {
		resp.Instances = append(resp.Instances, &pb.Instance{
			InstanceId: id, Generation: stop.GetGenerations()[n], Revision: 1, Status: pb.InstanceStatus_INSTANCE_STATUS_STOPPED,
		})
	}
	return resp, nil
}

func keepsWhatMoved(_ string, req any, serve func() (any, error)) (any, error) {
	if stop, yes := req.(*pb.NodeAgentServiceStopInstanceRequest); yes && stop.GetMoved() {
		return &pb.NodeAgentServiceStopInstanceResponse{}, nil
	}
	return serve()
}

func startsNothing(node string, req any, serve func() (any, error)) (any, error) {
	start, yes := req.(*pb.NodeAgentServiceStartInstanceRequest)
	if !yes || node != "n2" || start.GetOrders()[0].GetMovedFrom() != nil {
		return serve()
	}
	resp := &pb.NodeAgentServiceStartInstanceResponse{}
	for _, o := range start.GetOrders() {
		resp.Instances = append(resp.Instances, &pb.Instance{
			InstanceId: o.GetInstanceId(), Spec: start.GetSpec(), NodeId: "00000002-0000-4000-8000-000000000000", NodeName: node,
			Generation: o.GetGeneration(), Revision: 1, Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING,
		})
	}
	return resp, nil
}

// TestVotersElectOneLeaderPerTerm shuffles cuts at random, and looks at Raft only.
func TestVotersElectOneLeaderPerTermAndLoseNothingCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 1))
		net := newNetwork(1)
		q := newQuorum(1, net)
		for n := range voters {
			v := &voter{id: fmt.Sprint(n), addr: fmt.Sprint(n)}
			q.voters = append(q.voters, v)
			q.start(v, &life{refused: map[int]error{}})
		}
		led := map[uint64]string{}
		var committed []entry
		for range 20_000 {
			time.Sleep(pace)
			q.step()
			if random.IntN(50) == 0 {
				w := way{fmt.Sprint(random.IntN(voters)), fmt.Sprint(random.IntN(voters))}
				net.change(func() { net.cut[w] = random.IntN(2) == 0 })
			}
			for _, v := range q.voters {
				if v.leads && led[v.term] != "" && led[v.term] != v.id {
					t.Fatalf("%s and %s lead term %d", led[v.term], v.id, v.term)
				}
				if v.leads {
					led[v.term] = v.id
				}
				if random.IntN(500) == 0 {
					q.start(v, &life{refused: map[int]error{}})
				}
				for n := range min(v.commit, len(committed)) {
					if v.log[n].term != committed[n].term {
						t.Fatalf("entry %d was committed in term %d, and %s has one of term %d", n, committed[n].term, v.id, v.log[n].term)
					}
				}
				if v.commit > len(committed) {
					committed = slices.Clone(v.log[:v.commit])
				}
			}
		}
		if len(led) < 20 || len(committed) < 20 {
			t.Errorf("only %d terms and %d entries: this has tried nothing", len(led), len(committed))
		}
	})
}

// TestMessagesWaitForACutToEndOrBreakTheirConnection pins what the network does to a call.
func TestMessagesWaitForACutToEndOrBreakTheirConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cut := range []time.Duration{time.Second, time.Minute} {
			net := newNetwork(1)
			there := &life{addr: "b"}
			net.change(func() { net.nodes["b"] = there })
			w, err := net.connect(t.Context(), nil, way{client, "b"})
			if err != nil {
				t.Fatal(err)
			}
			net.change(func() { net.cut[way{client, "b"}] = true })
			var arrived atomic.Bool
			began := time.Now()
			heal := time.AfterFunc(cut, func() { net.change(func() { clear(net.cut) }) })
			err = w.carry(client, "b", time.Millisecond)
			arrived.Store(err == nil)
			switch took := time.Since(began); {
			case cut == time.Second && (err != nil || took != cut):
				t.Errorf("after a cut of %s the message came after %s, with %v", cut, took, err)
			case cut == time.Minute && (err == nil || took < breaksAfter || took > breaksWithin):
				t.Errorf("in a cut of %s the connection broke after %s, with %v", cut, took, err)
			}
			heal.Stop()
		}
	})
}

// TestGuestIsStored looks whether the module that was written by hand is one.
func TestGuestIsStored(t *testing.T) {
	store, hash, err := storeGuest(filepath.Join(t.TempDir(), "modules"))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := store.List(); err != nil || len(list) != 1 || string(list[0].Hash) != hash {
		t.Errorf("the store has %v, %v", list, err)
	}
}
