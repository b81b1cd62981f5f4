package runtime

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	goruntime "runtime"
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
	// meanwhile, and else gives it to who waits at once. It is also what of a call counts as computing, at most.
	slowCall = 50 * time.Microsecond
	// scheduleEvery is how long a guest may compute before it enters Go's scheduler. That wakes a thread up to go on with the guest, which
	// takes some 15 µs.
	scheduleEvery = time.Millisecond
	// usualShare is the share of a guest that was given none, in thousandths of a core.
	usualShare = 100
)

// turns lets as many guests compute at once as there are places: as many as there are cores. So there is always a processor of Go's
// left for all else that is ready to run, however many guests never rest. Who has computed least for its share comes first: weighted fair
// queueing, in virtual time, which goes by as fast as time does for a guest of the usual share, and half as fast for one of twice that.
type turns struct {
	waits  atomic.Int32 // how many wait, for who would rather not take the lock
	waited atomic.Int64 // for how long those did together that have got their place; a time.Duration

	mu      sync.Mutex // guards all below
	free    int
	holders []*turn
	waiting queue
	newest  uint64        // of those that were made to wait
	floor   time.Duration // the virtual time that all who compute or wait have reached; who comes back from a long rest gets no more credit than a lead
	watched bool          // watch runs
	watch   sync.WaitGroup
}

func newTurns(places int) *turns { return &turns{free: places} }

// turn is one guest's part in it. All but what is guarded is of the guest's own goroutine.
type turn struct {
	turns *turns
	share int       // in thousandths of a core
	cpu   stopwatch // runs while the guest computes

	scheduled time.Duration // when it entered Go's scheduler last

	// calls counts beginnings and ends of calls, so it is odd during one; with taken, its place went to another meanwhile.
	calls atomic.Uint64
	began time.Duration // the call under way
	slow  bool          // the last call was not quick
	away  bool          // it has given its place up for the call under way

	used    time.Duration // how long it has computed, in virtual time; guarded by turns.mu
	counted time.Duration // what of cpu is in that; guarded by turns.mu
	seen    uint64        // the calls that were seen last; guarded by turns.mu
	number  uint64        // of its wait; guarded by turns.mu
	at      int           // in the queue; guarded by turns.mu
	granted chan struct{} // has one thing in it once it has got a place
}

const taken = 1 << 63

// turn returns the part of a guest with a share, 0 for the usual one.
func (s *turns) turn(share int) *turn {
	return &turn{turns: s, share: cmp.Or(share, usualShare), cpu: stopwatch{origin: time.Now()}, granted: make(chan struct{}, 1)}
}

// virtual is how much virtual time goes by while the guest computes for a while.
func (t *turn) virtual(d time.Duration) time.Duration {
	return time.Duration(float64(d) * usualShare / float64(t.share))
}

// enter waits for a place. It returns early with the context's error, and without a place.
func (t *turn) enter(ctx context.Context) error {
	s := t.turns
	s.mu.Lock()
	t.rested()
	if s.free > 0 {
		s.free--
		s.hold(t)
		s.mu.Unlock()
		t.cpu.start(t.cpu.now(), 0)
		return nil
	}
	s.line(t)
	s.mu.Unlock()
	return t.wait(ctx)
}

// leave gives the place back, if the guest has one: it will not compute for a while.
func (t *turn) leave() {
	t.cpu.stop(t.cpu.now())
	s := t.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	if s.drop(t) {
		s.next()
	}
}

// pass lets other threads of the machine run if any wait, and what else is ready in this process: Go's scheduler looks at the collector's
// workers and the network only when a goroutine stops by itself, or after 10 ms. Then another guest computes if one waits that has computed
// less for its share. It returns early as enter does.
func (t *turn) pass(ctx context.Context) error {
	t.cpu.stop(t.cpu.now())
	yieldCore()
	if now := t.cpu.now(); now-t.scheduled >= scheduleEvery {
		t.scheduled = now
		goruntime.Gosched()
	}
	t.cpu.start(t.cpu.now(), 0)
	s := t.turns
	if s.waits.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	s.advance()
	if len(s.waiting) == 0 || s.waiting[0].used+t.virtual(lead) > t.used {
		s.mu.Unlock()
		return nil
	}
	t.cpu.stop(t.cpu.now())
	s.drop(t)
	s.next()
	s.line(t)
	s.mu.Unlock()
	return t.wait(ctx)
}

// beginCall and endCall enclose what may wait or not. A guest whose calls are quick keeps its place.
func (t *turn) beginCall() {
	t.began = t.cpu.now()
	t.cpu.stop(t.began)
	if t.slow && t.turns.waits.Load() > 0 {
		t.away = true
		t.leave()
		return
	}
	t.calls.Add(1)
}

func (t *turn) endCall(ctx context.Context) error {
	now := t.cpu.now()
	t.slow = now-t.began > slowCall
	if t.away {
		t.away = false
		return t.enter(ctx)
	}
	s := t.turns
	calls := t.calls.Load()
	switch {
	case calls&taken != 0 || !t.calls.CompareAndSwap(calls, calls+1):
		t.calls.Store(t.calls.Load()&^taken + 1)
		return t.enter(ctx)
	case t.slow: // it may have rested for long
		s.mu.Lock()
		t.rested()
		s.mu.Unlock()
	}
	t.cpu.start(now, min(now-t.began, slowCall))
	return nil
}

// rested takes credit away that the guest has got by resting, beyond a lead; the lock is held.
func (t *turn) rested() {
	t.turns.advance()
	t.count()
	t.used = max(t.used, t.turns.floor-t.virtual(lead))
}

// wait waits for a place that it is in line for.
func (t *turn) wait(ctx context.Context) error {
	s, began := t.turns, t.cpu.now()
	select {
	case <-t.granted:
		now := t.cpu.now()
		t.cpu.start(now, 0)
		s.waited.Add(int64(now - began))
		return nil
	case <-ctx.Done():
	}
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

// count brings up to date how long the guest has computed; the lock is held.
func (t *turn) count() {
	computed := t.cpu.read()
	t.used += t.virtual(computed - t.counted)
	t.counted = computed
}

// advance brings the floor up to date; the lock is held.
func (s *turns) advance() {
	least := time.Duration(math.MaxInt64)
	for _, t := range s.holders {
		t.count()
		if t.calls.Load()%2 == 0 { // else it may be resting
			least = min(least, t.used)
		}
	}
	if len(s.waiting) > 0 {
		least = min(least, s.waiting[0].used)
	}
	if least < math.MaxInt64 {
		s.floor = max(s.floor, least)
	}
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
		for n := 0; n < len(s.holders); n++ {
			t := s.holders[n]
			calls := t.calls.Load()
			if calls%2 == 0 || calls != t.seen {
				t.seen = calls
				continue
			}
			if t.calls.CompareAndSwap(calls, calls|taken) {
				s.drop(t)
				s.next()
				n--
			}
		}
		s.mu.Unlock()
	}
}

// queue is those that wait, who has computed least for its share and waited longest first.
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
