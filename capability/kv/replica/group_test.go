package replica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

func put(t testing.TB, kv capability.KV, key, value string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := kv.Set(ctx, "b", key, []byte(value), capability.SetOptions{})
	if err != nil {
		t.Fatalf("set %s: %v", key, err)
	}
	return r
}

func wantValue(t testing.TB, kv capability.KV, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if e, err := kv.Get(ctx, "b", key); err != nil || string(e.Value) != value {
		t.Errorf("%s holds %q, %v; want %q", key, e.Value, err, value)
	}
}

// load writes keys as fast as it can until it is told to end, and remembers which were acknowledged.
type load struct {
	kv    capability.KV
	mu    sync.Mutex
	acked map[string]uint64
	end   func()
}

func startLoad(t testing.TB, kv capability.KV, callers int) *load {
	t.Helper()
	l := &load{kv: kv, acked: map[string]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for caller := range callers {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprint(caller, "-", n)
				if r, err := kv.Set(ctx, "load", key, []byte(key), capability.SetOptions{}); err == nil {
					l.mu.Lock()
					l.acked[key] = r
					l.mu.Unlock()
				}
			}
		})
	}
	l.end = sync.OnceFunc(func() {
		cancel()
		work.Wait()
	})
	t.Cleanup(l.end)
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// writesOn waits until more was acknowledged.
func (l *load) writesOn(t testing.TB) {
	t.Helper()
	before := l.count()
	waitFor(t, "more to be acknowledged", func() string {
		if n := l.count(); n < before+20 {
			return fmt.Sprint(n-before, " were")
		}
		return ""
	})
}

func (l *load) check(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for key, r := range l.acked {
		if e, err := l.kv.Get(ctx, "load", key); err != nil || string(e.Value) != key || e.Revision != r {
			t.Fatalf("%s, which was acknowledged at revision %d, is %q at %d, %v", key, r, e.Value, e.Revision, err)
		}
	}
}

func TestDeathOfAMinorityLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	l := startLoad(t, anywhere{c, "kv"}, 8)
	l.writesOn(t)
	for _, victim := range []*node{c.leader(), c.follower()} {
		left := c.kill(victim)
		l.writesOn(t)
		c.start(victim.id, left)
		l.writesOn(t)
	}
	l.end()
	l.check(t)
}

func (c *cluster) follower() *node {
	leader := c.leader()
	for _, n := range c.all() {
		if n != leader {
			return n
		}
	}
	return nil
}

func TestPowerCycleOfAllLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	l := startLoad(t, anywhere{c, "kv"}, 8)
	l.writesOn(t)
	for _, n := range c.all() {
		n.stream.Load().Cut() // nobody acknowledges any more
	}
	l.end()
	left := map[string]string{}
	for _, n := range c.all() {
		left[n.id] = c.kill(n)
	}
	// They find each other again before the metadata has a leader who could tell them anything.
	for id, dir := range left {
		c.start(id, dir)
	}
	l.check(t)
	c.settled(c.all()...)
}

// A counter that is added to while leaders come and go counts each call once, and is never seen to go back.
func TestCounterIsLinearizableWhileLeadersChange(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	kv := anywhere{c, "kv"}
	ctx, cancel := context.WithCancel(t.Context())
	calm, hurry := context.WithTimeout(t.Context(), 2*patience)
	defer hurry()
	var calls, newest atomic.Int64
	var work sync.WaitGroup
	seen := sync.Map{}
	for range 4 {
		work.Go(func() {
			for ctx.Err() == nil {
				// The call goes on after the end: whether it was done must be known.
				sum, err := kv.Increment(calm, "b", "n", 1)
				if err != nil {
					t.Errorf("increment: %v", err)
					return
				}
				calls.Add(1)
				if _, twice := seen.LoadOrStore(sum, true); twice {
					t.Errorf("two calls were answered %d", sum)
				}
				for {
					was := newest.Load()
					if sum <= was || newest.CompareAndSwap(was, sum) {
						break
					}
				}
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				atLeast := newest.Load()
				e, err := kv.Get(ctx, "b", "n")
				if err != nil {
					if s := capability.FromError(err).Status; s == capability.NotFound && atLeast == 0 || ctx.Err() != nil {
						continue
					}
					t.Errorf("get: %v", err)
					return
				}
				if n, _ := strconv.ParseInt(string(e.Value), 10, 64); n < atLeast {
					t.Errorf("a reader saw %d after %d was acknowledged", n, atLeast)
					return
				}
			}
		})
	}
	for range 3 {
		before := calls.Load()
		waitFor(t, "calls", func() string {
			if calls.Load() < before+50 {
				return "too few"
			}
			return ""
		})
		leader := c.leader()
		if err := leader.current().raft.LeadershipTransfer().Error(); err != nil {
			t.Logf("transfer: %v", err)
		}
	}
	victim := c.leader()
	left := c.kill(victim)
	before := calls.Load()
	waitFor(t, "calls without the dead", func() string {
		if calls.Load() < before+50 {
			return "too few"
		}
		return ""
	})
	c.start(victim.id, left)
	cancel()
	work.Wait()
	wantValue(t, kv, "n", strconv.FormatInt(calls.Load(), 10))
}

// One who was leader until a moment ago does not answer with what was then.
func TestDeposedLeaderReadsNothing(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	old := c.leader()
	put(t, old.Store("kv"), "k", "before")
	old.stream.Load().Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := old.Store("kv").Get(ctx, "b", "k")
	if e := capability.FromError(err); e == nil || e.Status != capability.Unavailable {
		t.Errorf("while nobody confirms that it leads: %v", err)
	}
	waitFor(t, "another leader", func() string {
		if n := c.leads(); n == nil || n == old {
			return "none"
		}
		return ""
	})
	put(t, c.leader().Store("kv"), "k", "after")
	old.stream.Load().Restore()
	waitFor(t, "the old one to know who leads", func() string {
		if id, self := old.Leader(); id != c.leader().id || self {
			return "it takes " + id
		}
		return ""
	})
	_, err = old.Store("kv").Get(t.Context(), "b", "k")
	elsewhere, ok := errors.AsType[*NotLeader](err)
	if !ok || elsewhere.NodeID != c.leader().id {
		t.Errorf("it says %v", err)
	}
	wantValue(t, anywhere{c, "kv"}, "k", "after")
}

func TestRepeatedCallIsDoneOnce(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	ctx := WithCallID(t.Context(), NewCallID())
	first, err := c.leader().Store("kv").Increment(ctx, "b", "n", 5)
	if err != nil {
		t.Fatal(err)
	}
	c.kill(c.leader())
	again, err := c.leader().Store("kv").Increment(ctx, "b", "n", 5)
	if err != nil || again != first {
		t.Errorf("the repetition is answered %d, %v; the first was %d", again, err, first)
	}
	_, err = c.leader().Store("kv").Increment(ctx, "b", "m", 5)
	if e := capability.FromError(err); e == nil || e.Status != capability.InvalidRequest {
		t.Errorf("the id for another call: %v", err)
	}
}

func TestBrokenStoreIsBuiltAnew(t *testing.T) {
	t.Parallel()
	c := founded(t, 1)
	n := c.leader()
	put(t, n.Store("kv"), "k", "kept")
	broken := n.current()
	if err := broken.fsm.store.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := n.Store("kv").Set(ctx, "b", "other", nil, capability.SetOptions{})
	if e := capability.FromError(err); e == nil || e.Status != capability.Unavailable {
		t.Errorf("set: %v", err)
	}
	waitFor(t, "another store", func() string {
		if s := n.current(); s == nil || s == broken || !s.leads() {
			return "the same"
		}
		return ""
	})
	wantValue(t, n.Store("kv"), "k", "kept")
}

func TestLogIsCutShortWhenItHasGrown(t *testing.T) {
	t.Parallel()
	c := founded(t, 1)
	kv := c.leader().Store("kv")
	value := make([]byte, capability.MaxValue)
	for i := range 2 + snapshotBytes/capability.MaxValue {
		if _, err := kv.Set(t.Context(), "b", fmt.Sprint("k", i%3), value, capability.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "a snapshot", func() string {
		if all, err := c.leader().current().snapshots.List(); err != nil || len(all) == 0 {
			return fmt.Sprint("none, ", err)
		}
		return ""
	})
}

func TestExpiredKeysAreSweptAway(t *testing.T) {
	t.Parallel()
	c := founded(t, 1)
	n := c.leader()
	for i := range 20 {
		if _, err := n.Store("kv").Set(t.Context(), "b", fmt.Sprint(i), []byte("x"), capability.SetOptions{TTL: time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the store to be empty", func() string {
		left := 0
		err := n.current().fsm.view(func(p page) error {
			left = p.records.Stats().KeyN + p.expiry.Stats().KeyN
			return nil
		})
		if left > 0 || err != nil {
			return fmt.Sprint(left, " are left, ", err)
		}
		return ""
	})
}

func TestWritesAreBounded(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	leader := c.leader()
	for _, n := range c.all() {
		if n != leader {
			n.stream.Load().Cut() // so that nothing is agreed on
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var work sync.WaitGroup
	var ended atomic.Int64
	value := make([]byte, capability.MaxValue)
	for range 2 * maxPendingBytes / capability.MaxValue {
		work.Go(func() {
			_, err := leader.Store("kv").Set(ctx, "b", "k", value, capability.SetOptions{})
			if e := capability.FromError(err); e != nil && (e.Status == capability.Timeout || e.Status == capability.Unavailable) {
				ended.Add(1)
			}
		})
	}
	work.Wait()
	if ended.Load() != 2*maxPendingBytes/capability.MaxValue {
		t.Errorf("%d ended as they should", ended.Load())
	}
}
