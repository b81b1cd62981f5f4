package runtime

import (
	"context"
	"errors"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/internal/guest"
	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// instantiated is an instance whose memory and fuel are those of a spec, and what it is to do.
func instantiated(t *testing.T, e *Engine, m *Module, s Spec, args ...string) *Instance {
	t.Helper()
	s.Args, s.MemoryLimit = append([]string{"guest"}, args...), 64*mib
	i, err := e.Instantiate(t.Context(), m, s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// The same work costs the same, however it is interrupted, and whatever else happens meanwhile.
func TestSameWorkCostsTheSameFuel(t *testing.T) {
	e := newEngine(t)
	for name, c := range map[string]struct {
		module string
		args   []string
	}{
		"C": {guest.Actor(t), []string{"touch", "6", "exit", "3"}}, "trap": {guest.Actor(t), []string{"touch", "2", "trap"}},
		"Rust":           {guest.Rust(t, "../examples/counter/rust/src/main.rs"), nil},
		"AssemblyScript": {guest.AssemblyScript(t, "../examples/counter/as/main.ts"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := compile(t, e, c.module)
			run := func(units int64, budget uint64) (Exit, Usage) {
				i := instantiated(t, e, m, Spec{Fuel: budget}, c.args...)
				i.host.work.most = units
				return i.Run(t.Context()), i.Usage()
			}
			exit, whole := run(mostUnits, 0)
			if exit.OutOfFuel || exit.Interrupted || whole.Fuel == 0 {
				t.Fatalf("%+v, having used %+v", exit, whole)
			}
			rapid.Check(t, func(t *rapid.T) {
				units := rapid.Int64Range(1, 20_000).Draw(t, "units")
				if again, used := run(units, 0); again != exit || used.Fuel != whole.Fuel {
					t.Errorf("given %d at most: %+v, having used %d; else %+v and %d", units, again, used.Fuel, exit, whole.Fuel)
				}
				if again, used := run(units, whole.Fuel); again != exit || used.Fuel != whole.Fuel {
					t.Errorf("with just enough: %+v, having used %d; else %+v and %d", again, used.Fuel, exit, whole.Fuel)
				}
				budget := rapid.Uint64Range(1, whole.Fuel-1).Draw(t, "budget")
				if again, used := run(units, budget); again != (Exit{OutOfFuel: true}) || used.Fuel != budget {
					t.Errorf("with %d of %d: %+v, having used %d", budget, whole.Fuel, again, used.Fuel)
				}
			})
		})
	}
}

func TestUsageTellsOfMemoryUntilTheEndAndAfter(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	i := instantiated(t, e, m, Spec{}, "touch", "6")
	if used := i.Usage(); used.Memory != m.MinMemory() || used.PeakMemory != used.Memory || used.CPU != 0 {
		t.Errorf("before the run: %+v; the module starts with %d", used, m.MinMemory())
	}
	i.Run(t.Context())
	if used := i.Usage(); used.Memory != 0 || used.PeakMemory < 6*mib || used.PeakMemory > 8*mib || used.CPU <= 0 {
		t.Errorf("after one that took 6 MiB: %+v", used)
	}
}

// Who reads it need not wait for the guest to be asked anything.
func TestUsageOfARunIsUpToDate(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	i := instantiated(t, e, m, Spec{}, "spin")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan Exit)
	go func() { ended <- i.Run(ctx) }()
	for last := (Usage{}); last.CPU < 50*time.Millisecond || last.Fuel == 0; {
		now := i.Usage()
		if now.CPU < last.CPU || now.Fuel < last.Fuel {
			t.Errorf("%+v after %+v", now, last)
			break
		}
		last = now
	}
	stop()
	if exit := <-ended; !exit.Interrupted {
		t.Errorf("%+v", exit)
	}
	if once, again := i.Usage(), i.Usage(); once != again {
		t.Errorf("after the end %+v, and then %+v", once, again)
	}
}

// What a guest waits for is not counted: sleeps, calls beyond their first microseconds, its turn.
func TestWaitingIsNoComputing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		guest, other := s.turn(0), s.turn(0)
		if err := guest.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		guest.leave()
		time.Sleep(time.Hour)
		if err := other.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		entered := make(chan error)
		go func() { entered <- guest.enter(t.Context()) }()
		time.Sleep(time.Second)
		other.leave()
		if err := <-entered; err != nil {
			t.Fatal(err)
		}
		for _, took := range []time.Duration{time.Hour, slowCall / 2} {
			guest.beginCall()
			time.Sleep(took)
			if err := guest.endCall(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
		if computed, want := guest.cpu.read(), 2*time.Millisecond+slowCall*3/2; computed != want {
			t.Errorf("it has computed for %s, want %s", computed, want)
		}
		guest.leave()
		if waited := other.cpu.read(); waited != time.Second {
			t.Errorf("the other has computed for %s, want 1s", waited)
		}
		nobodyIsLeft(t, s, 1)
	})
}

func TestModuleThatPassesForMeteredIsRefused(t *testing.T) {
	e := newEngine(t)
	exports := append([]byte{2, 6}, "_start\x00\x00"...)
	exports = append(append(append(exports, byte(len(meter.Counter))), meter.Counter...), 3, 0)
	own := section(6, 1, 0x7e, 1, 0x42, 0, 0x0b)
	_, err := compileBytes(e, tiny(oneFunction, own, section(7, exports...), emptyCode))
	var refused *InvalidModuleError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), meter.Counter) {
		t.Errorf("got %v, want a refusal that tells of %s", err, meter.Counter)
	}
}

// Real guests that never rest get what their shares say, and those of the same share get the same.
func TestRealGuestsShareByTheirShares(t *testing.T) {
	e := newEngine(t)
	e.turns = newTurns(2) // fewer than there are guests, wherever this runs
	m := compile(t, e, guest.Actor(t))
	ctx, stop := context.WithCancel(t.Context())
	shares := []int{100, 300, 100, 300}
	var guests []*Instance
	var run sync.WaitGroup
	for _, share := range shares {
		i := instantiated(t, e, m, Spec{Share: share}, "spin")
		guests = append(guests, i)
		run.Go(func() { i.Run(ctx) })
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var each []time.Duration
	for all := time.Duration(0); all < 3200*time.Millisecond; <-tick.C {
		all, each = 0, nil
		for _, i := range guests {
			each = append(each, i.Usage().CPU)
			all += each[len(each)-1]
		}
	}
	stop()
	run.Wait()
	for n, share := range shares {
		if got, want := each[n], time.Duration(share)*4*time.Millisecond; got < want*9/10 || got > want*11/10 {
			t.Errorf("with a share of %d it got %s, want %s; all got %v", share, got, want, each)
		}
	}
}

// Guests that never rest let garbage be collected, and each computes.
func TestGarbageIsCollectedBesideSpinningGuests(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	ctx, stop := context.WithCancel(t.Context())
	var guests []*Instance
	var run sync.WaitGroup
	for range 16 {
		i := instantiated(t, e, m, Spec{}, "spin")
		guests = append(guests, i)
		run.Go(func() { i.Run(ctx) })
	}
	for _, i := range guests {
		for i.Usage().Fuel == 0 {
			goruntime.Gosched()
		}
	}
	for range 10 {
		goruntime.GC()
	}
	stop()
	run.Wait()
}
