package runtime

import (
	"sync/atomic"

	"github.com/tetratelabs/wazero/api"
)

// fuel accounts for what a guest's computing costs: what it was given, less what its counter has left. So it does not matter in which
// pieces it was given, and the same work costs the same on each machine.
type fuel struct {
	budget  int64      // what it may use; 0 for all it wants
	counter api.Global // of the guest; nil where it has none
	given   int64      // in all
	out     bool       // it wanted more than its budget
	used    atomic.Uint64
}

// note takes down what was used, with so much left. The counter is charged before the code runs, so what is beyond the budget was not
// used.
func (f *fuel) note(left int64) {
	used := f.given - left
	if f.budget > 0 && used > f.budget {
		f.out, used = true, f.budget
	}
	f.used.Store(uint64(used))
}

// give returns what the counter gets, of which it has less than nothing left: so many units, or what the budget has.
func (f *fuel) give(units, left int64) int64 {
	if f.budget > 0 {
		units = min(units, f.budget-(f.given-left))
	}
	f.given += units - left
	return units
}

// settle takes down what the counter has at the end.
func (f *fuel) settle() {
	if f.counter != nil {
		f.note(int64(f.counter.Get()))
	}
}
