package runtime

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lead is by how much a guest may have computed longer than one that waits before it makes room: long enough that a
	// change of guests, which takes some 10 µs, does not count; short enough that nobody notices.
	lead = 2 * time.Millisecond
	// retakeEvery is how often it is looked whether who has a place waits in a call. One that still waits in the same call as the time before
	// loses its place, while others want it.
	retakeEvery = 250 * time.Microsecond
	// slowCall is how long a call may take for the next one of that guest to be expected to be quick: then the guest keeps its place
	// meanwhile, and else gives it to who waits at once.
	slowCall = 50 * time.Microsecond
)

// turns lets as many guests compute at once as there are places: as many as there are cores. So there is always a processor of Go's
// left for all else that is ready to run, however many guests never rest. Who has computed least comes first.
type turns struct {
	waits atomic.Int32 // how many wait, for who would rather not take the lock

	mu      sync.Mutex // guards all below
	free    int
	holders []*turn
	waiting queue
	newest  uint64        // of those that were made to wait
	floor   time.Duration // what the least of those that computed lately has; who comes back from a long rest gets no more credit than that
	watched bool          // watch runs
	watch   sync.WaitGroup
}

func newTurns(places int) *turns { return &turns{free: places} }

// turn is one guest's part in it. All but what is guarded is of the guest's own goroutine.
type turn struct {
	turns *turns
	since time.Time // when it began to compute, or was counted last

	// calls counts beginnings and ends of calls, so it is odd during one; with taken, its place went to another meanwhile.
	calls atomic.Uint64
	began time.Time // the call under way; zero where nobody waited
	slow  bool      // the last call that was looked at was not quick
	away  bool      // it has given its place up for the call under way

	used    time.Duration // how long it has computed; guarded by turns.mu
	seen    uint64        // the calls that were seen last; guarded by turns.mu
	lost    time.Time     // when its place was taken; guarded by turns.mu
	number  uint64        // of its wait; guarded by turns.mu
	at      int           // in the queue; guarded by turns.mu
	granted chan struct{} // has one thing in it once it has got a place
}

const taken = 1 << 63

func (s *turns) turn() *turn { return &turn{turns: s, granted: make(chan struct{}, 1)} }

// enter waits for a place. It returns early with the context's error, and without a place.
func (t *turn) enter(ctx context.Context) error {
	s := t.turns
	s.mu.Lock()
	t.used = max(t.used, s.floor-lead)
	if s.free > 0 {
		s.free--
		s.hold(t)
		s.mu.Unlock()
		t.since = time.Now()
		return nil
	}
	s.line(t)
	s.mu.Unlock()
	return t.wait(ctx)
}

// leave gives the place back, if the guest has one: it will not compute for a while.
func (t *turn) leave() {
	s := t.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drop(t) { // else it has computed nothing since
		t.count()
		s.next()
	}
}

// pass lets another guest compute if one waits that has computed less. It returns early as enter does.
func (t *turn) pass(ctx context.Context) error {
	s := t.turns
	if s.waits.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	t.count()
	if len(s.waiting) == 0 || s.waiting[0].used+lead > t.used {
		s.mu.Unlock()
		return nil
	}
	s.drop(t)
	s.next()
	s.line(t)
	s.mu.Unlock()
	return t.wait(ctx)
}

// beginCall and endCall enclose what may wait or not. A guest whose calls are quick keeps its place.
func (t *turn) beginCall() {
	if t.turns.waits.Load() > 0 {
		t.began = time.Now()
		if t.slow {
			t.away = true
			t.leave()
			return
		}
	}
	t.calls.Add(1)
}

func (t *turn) endCall(ctx context.Context) error {
	if !t.began.IsZero() {
		t.slow, t.began = time.Since(t.began) > slowCall, time.Time{}
	}
	if t.away {
		t.away = false
		return t.enter(ctx)
	}
	now := t.calls.Load()
	if now&taken == 0 && t.calls.CompareAndSwap(now, now+1) {
		return nil
	}
	t.slow = true
	s := t.turns
	s.mu.Lock()
	t.calls.Store(t.calls.Load()&^taken + 1)
	t.used += t.lost.Sub(t.since)
	s.mu.Unlock()
	return t.enter(ctx)
}

// wait waits for a place that it is in line for.
func (t *turn) wait(ctx context.Context) error {
	select {
	case <-t.granted:
		t.since = time.Now()
		return nil
	case <-ctx.Done():
	}
	s := t.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-t.granted: // at the same time
		s.drop(t)
		s.next()
	default:
		heap.Remove(&s.waiting, t.at)
		s.waits.Store(int32(len(s.waiting)))
	}
	return ctx.Err()
}

// count adds to what it has computed; the lock is held.
func (t *turn) count() {
	now := time.Now()
	t.used += now.Sub(t.since)
	t.since = now
	t.turns.floor = max(t.turns.floor, t.used-lead) // roughly: those in line have less, by a lead at most
}

// hold notes who has a place; the lock is held.
func (s *turns) hold(t *turn) {
	t.seen = 0
	s.holders = append(s.holders, t)
}

// drop notes who has none any more, and says whether it had one; the lock is held.
func (s *turns) drop(t *turn) bool {
	for n, h := range s.holders {
		if h == t {
			s.holders[n] = s.holders[len(s.holders)-1]
			s.holders = s.holders[:len(s.holders)-1]
			s.free++
			return true
		}
	}
	return false
}

// line puts a guest in line; the lock is held.
func (s *turns) line(t *turn) {
	s.newest++
	t.number = s.newest
	heap.Push(&s.waiting, t)
	s.waits.Store(int32(len(s.waiting)))
	if !s.watched {
		s.watched = true
		s.watch.Go(s.retake)
	}
}

// next gives a free place to who comes first; the lock is held.
func (s *turns) next() {
	if s.free == 0 || len(s.waiting) == 0 {
		return
	}
	s.free--
	t := heap.Pop(&s.waiting).(*turn) //nolint:forcetypeassert // it holds no others
	s.waits.Store(int32(len(s.waiting)))
	s.hold(t)
	t.granted <- struct{}{}
}

// retake takes the places of guests that wait in a call, as long as others wait for a place.
func (s *turns) retake() {
	tick := time.NewTicker(retakeEvery)
	defer tick.Stop()
	for range tick.C {
		s.mu.Lock()
		if len(s.waiting) == 0 {
			s.watched = false
			s.mu.Unlock()
			return
		}
		now := time.Now()
		for n := 0; n < len(s.holders); n++ {
			t := s.holders[n]
			calls := t.calls.Load()
			if calls%2 == 0 || calls != t.seen {
				t.seen = calls
				continue
			}
			if t.calls.CompareAndSwap(calls, calls|taken) {
				t.lost = now
				s.drop(t)
				s.next()
				n--
			}
		}
		s.mu.Unlock()
	}
}

// queue is those that wait, who has computed least and waited longest first.
type queue []*turn

var _ heap.Interface = (*queue)(nil)

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, k int) bool {
	return q[i].used < q[k].used || q[i].used == q[k].used && q[i].number < q[k].number
}
func (q queue) Swap(i, k int) {
	q[i], q[k] = q[k], q[i]
	q[i].at, q[k].at = i, k
}

func (q *queue) Push(t any) {
	one := t.(*turn) //nolint:forcetypeassert // it holds no others
	one.at = len(*q)
	*q = append(*q, one)
}

func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
