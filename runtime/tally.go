package runtime

import (
	"sync"
	"time"
)

// Totals is what all guests of an engine have used together.
type Totals struct {
	CPU    time.Duration
	Fuel   uint64
	Memory uint64 // bytes that they have now
}

// tally adds up what guests use.
type tally struct {
	mu sync.Mutex // guards what follows

	live  map[*Instance]struct{}
	ended Totals // of those that are gone
}

func newTally() *tally { return &tally{live: map[*Instance]struct{}{}} }

func (t *tally) begin(i *Instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live[i] = struct{}{}
}

// end counts a guest for the last time; again it does nothing.
func (t *tally) end(i *Instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, live := t.live[i]; live {
		delete(t.live, i)
		t.ended.add(i.Usage())
	}
}

func (t *Totals) add(u Usage) {
	t.CPU += u.CPU
	t.Fuel += u.Fuel
}

// Totals returns what all guests have used so far. CPU and fuel only grow.
func (e *Engine) Totals() Totals {
	t := e.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.ended
	for i := range t.live {
		used := i.Usage()
		sum.add(used)
		sum.Memory += used.Memory
	}
	return sum
}
