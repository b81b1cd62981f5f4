package runtime

import (
	"sync/atomic"
	"time"
)

// Usage is what one run of a guest has used, so far or in all.
type Usage struct {
	// How long it computed: while it had a place among those that compute (as long as it ran, where it is not metered), without sleeps,
	// and of each call of a provider at most the first 50 µs. What the operating system took meanwhile counts.
	CPU time.Duration
	// What its computing cost in units of metering, the same on each machine; 0 where it is not metered. While it runs it is what was
	// known at the last refill.
	Fuel uint64
	// Bytes of linear memory: now, and at most. What was not touched counts, though it is not real.
	Memory, PeakMemory uint64
}

// Usage says what the guest has used. It may be called at any time, and after its end.
func (i *Instance) Usage() Usage {
	w := i.host.work
	return Usage{CPU: w.turn.cpu.read(), Fuel: w.fuel.used.Load(), Memory: i.memory.now.Load(), PeakMemory: i.memory.peak.Load()}
}

// stopwatch is how long a guest computed. The guest's own goroutine starts and stops it, and any may read it.
type stopwatch struct {
	origin time.Time // from which it takes the time
	// Twice the nanoseconds, plus 1 while it runs: of what it has counted or, while it runs, of that less the time when it was started. One
	// number, so that calls of the host, of which there may be millions a second, need no lock.
	state atomic.Int64
	shown atomic.Int64 // the most that it was read as: it may be stopped at a time just before that of who reads it
}

func (w *stopwatch) now() time.Duration { return time.Since(w.origin) }

// start starts it at a time, with something on top of what it has counted.
func (w *stopwatch) start(now, and time.Duration) {
	w.state.Store(2*int64(counted(w.state.Load(), now)+and-now) + 1)
}

func (w *stopwatch) stop(now time.Duration) { w.state.Store(2 * int64(counted(w.state.Load(), now))) }

// read returns what it has counted by now, and never less than before.
func (w *stopwatch) read() time.Duration {
	for {
		state := w.state.Load()
		now := w.now()
		shown := w.shown.Load()
		if state != w.state.Load() { // it is not known whether it ran until then
			continue
		}
		read := max(int64(counted(state, now)), shown)
		if w.shown.CompareAndSwap(shown, read) {
			return time.Duration(read)
		}
	}
}

func counted(state int64, now time.Duration) time.Duration {
	if state&1 != 0 {
		return time.Duration(state>>1) + now
	}
	return time.Duration(state >> 1)
}
