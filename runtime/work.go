package runtime

import (
	"context"
	"fmt"
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

// work is what a metered guest computes. A nil one is of a guest that is not metered, and does nothing.
type work struct {
	turn *turn
	runs bool // it has a place among those that compute; not while it is being instantiated

	units    int64 // given at the last refill
	refilled time.Time
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
	stack[0] = uint64(h.work.refill(ctx))
}

// refill returns how many units the guest may use until it is asked again.
func (w *work) refill(ctx context.Context) int64 {
	if ctx.Err() != nil {
		interrupt()
	}
	if w.runs && w.turn.pass(ctx) != nil {
		interrupt()
	}
	now := time.Now()
	if took := now.Sub(w.refilled); w.units == 0 || took <= 0 {
		w.units = firstUnits
	} else {
		next := w.units * int64(quantum) / int64(took)
		w.units = min(max(next, w.units/2, fewestUnits), 2*w.units, mostUnits)
	}
	w.refilled = now
	return w.units
}

// begin waits until the guest may compute. It returns the context's error where that ends first.
func (w *work) begin(ctx context.Context) error {
	if w == nil {
		return nil
	}
	if err := w.turn.enter(ctx); err != nil {
		return err
	}
	w.runs = true
	return nil
}

// end notes that the guest computes no more.
func (w *work) end() {
	if w != nil {
		w.turn.leave()
	}
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
