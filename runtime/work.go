package runtime

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

const (
	// quantum is how long a guest computes between two calls of refill, about: as long as others may have to wait for it (to stop it, to
	// collect garbage), and a thousand times what the call takes.
	quantum = 100 * time.Microsecond
	// A unit of metering takes from a fraction of a nanosecond to some hundred, where the memory is slow. What is given for a quantum
	// starts with few and follows what they took.
	firstUnits, fewestUnits, mostUnits = 10_000, 1_000, 10_000_000
)

// work is what a guest computes. One that is not metered has a queue of its own, and so never waits in it. A nil one does nothing.
type work struct {
	turn *turn
	pace pace
	fuel fuel
	runs bool // it has a place among those that compute, or waits for one
	// It is being instantiated: what the module starts with, which few have, takes a place once it goes on for long.
	starts bool

	most     int64         // units that are given at once
	units    int64         // given at the last refill
	refilled time.Duration // what the guest had computed then
	gaveWay  time.Duration // what it had computed when it last let others compute
}

// newWork returns the work of a new guest of a module.
func (e *Engine) newWork(m *Module, s Spec) *work {
	turns := e.turns
	if !m.metered {
		turns = newTurns(1)
	}
	w := &work{starts: true, most: mostUnits, turn: turns.turn(s.Share), fuel: fuel{budget: int64(min(s.Fuel, math.MaxInt64))}}
	if s.Cap {
		w.pace = pace{share: w.turn.share, paid: -mostCredit}
	}
	return w
}

// offerRefill makes the function there that metered guests call.
func (e *Engine) offerRefill(ctx context.Context, r wazero.Runtime) error {
	long := []api.ValueType{i64}
	_, err := r.NewHostModuleBuilder(meter.HostModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(refill), long, long).Export(meter.HostRefill).Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("offer module %s: %w", meter.HostModule, err)
	}
	return nil
}

// refill is called by guests that have used up what they were given. It gives more, unless their time is over.
func refill(ctx context.Context, _ api.Module, stack []uint64) {
	h, ok := ctx.Value(hostKey{}).(*host)
	if !ok || h.work == nil { // no run of ours
		panic(sys.NewExitError(sys.ExitCodeContextCanceled))
	}
	stack[0] = uint64(h.work.refill(ctx, int64(stack[0])))
}

// refill returns how many units the guest may use until it is asked again. left is what the counter has, which is less than nothing.
func (w *work) refill(ctx context.Context, left int64) int64 {
	if w.fuel.note(left); w.fuel.out || ctx.Err() != nil {
		interrupt()
	}
	computed := w.turn.cpu.read()
	if took := computed - w.refilled; w.units == 0 || took <= 0 {
		w.units = min(firstUnits, w.most)
	} else {
		next := w.units * int64(quantum) / int64(took)
		w.units = min(max(next, w.units/2, fewestUnits), 2*w.units, w.most)
	}
	if w.giveWay(ctx, computed) != nil {
		interrupt()
	}
	w.refilled = w.turn.cpu.read()
	w.units = w.fuel.give(w.units, left)
	return w.units
}

// giveWay lets others compute, where the guest has computed enough for now. It returns early with the context's error.
func (w *work) giveWay(ctx context.Context, computed time.Duration) error {
	w.gaveWay = computed
	switch {
	case w.starts && !w.runs:
		return w.begin(ctx)
	case !w.runs:
		return nil
	}
	pause := w.pace.pause(w.turn.cpu.now(), computed)
	if pause == 0 {
		return w.turn.pass(ctx)
	}
	w.turn.leave()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return w.turn.enter(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin waits until the guest may compute. It returns the context's error where that ends first.
func (w *work) begin(ctx context.Context) error {
	if err := w.turn.enter(ctx); err != nil {
		return err
	}
	w.runs = true
	return nil
}

// end notes that the guest computes no more, for now.
func (w *work) end() {
	if w.runs {
		w.turn.leave()
	}
	w.runs, w.starts = false, false
	w.fuel.settle()
}

// rest notes that the guest waits; resume ends that, and the guest where its time is over.
func (w *work) rest() {
	if w != nil && w.runs {
		w.turn.leave()
	}
}

func (w *work) resume(ctx context.Context) {
	if w != nil && w.runs && w.turn.enter(ctx) != nil {
		interrupt()
	}
}

// sleep lets the guest wait. It ends with the run, and so does the guest.
func (w *work) sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		w.yield(ctx)
		return
	}
	w.rest()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		w.resume(ctx)
	case <-ctx.Done():
		interrupt()
	}
}

// yield is for calls of the host that go on for long: others compute after each quantum if it is their turn, and the guest ends where its
// time is over.
func (w *work) yield(ctx context.Context) {
	if ctx.Err() != nil {
		interrupt()
	}
	if computed := w.turn.cpu.read(); computed-w.gaveWay >= quantum && w.giveWay(ctx, computed) != nil {
		interrupt()
	}
}

// beginCall and endCall enclose what the guest asks of the host, which may make it wait.
func (w *work) beginCall() {
	if w != nil && w.runs {
		w.turn.beginCall()
	}
}

func (w *work) endCall(ctx context.Context) {
	if w != nil && w.runs && w.turn.endCall(ctx) != nil {
		interrupt()
	}
}

// interrupt ends the guest that calls the host.
func interrupt() { panic(sys.NewExitError(sys.ExitCodeContextCanceled)) }
