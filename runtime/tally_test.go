package runtime

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

func TestTotalsAreThoseOfAllGuestsAndOnlyGrow(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	before := e.Totals()
	idle := instantiated(t, e, m, Spec{})
	if now := e.Totals(); now.Memory != idle.Usage().Memory || now.Memory == 0 {
		t.Errorf("with one guest: %+v, and that has %+v", now, idle.Usage())
	}
	var (
		used    [8]Usage
		running sync.WaitGroup
		done    = make(chan struct{})
	)
	for n := range used {
		running.Go(func() {
			i := instantiated(t, e, m, Spec{}, "touch", "3")
			i.Run(t.Context())
			used[n] = i.Usage()
		})
	}
	go func() {
		running.Wait()
		close(done)
	}()
	for last, over := before, false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		now := e.Totals()
		if now.CPU < last.CPU || now.Fuel < last.Fuel {
			t.Fatalf("totals went from %+v to %+v", last, now)
		}
		last = now
	}
	if err := idle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := before
	for _, u := range used {
		sum.add(u)
	}
	sum.add(idle.Usage())
	if now := e.Totals(); now != sum || len(e.tally.live) != 0 {
		t.Errorf("in the end %+v of %d guests; theirs are %+v", now, len(e.tally.live), sum)
	}
}

func TestGuestThatCouldNotBeMadeIsCountedNoMore(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	if _, err := e.Instantiate(t.Context(), m, Spec{MemoryLimit: 64 * mib, Args: []string{"guest"}, Env: map[string]string{"A\x00": ""}}); err == nil {
		t.Fatal("a variable with a zero byte was taken")
	}
	if n := len(e.tally.live); n != 0 {
		t.Errorf("%d guests live", n)
	}
}

func TestWaitsForAPlaceAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		first, second := s.turn(0), s.turn(0)
		if err := first.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- second.enter(t.Context()) }()
		time.Sleep(time.Second)
		if n := s.waits.Load(); n != 1 || s.waited.Load() != 0 {
			t.Errorf("%d wait, and have waited for %s", n, time.Duration(s.waited.Load()))
		}
		first.leave()
		if err := <-done; err != nil || s.waits.Load() != 0 || time.Duration(s.waited.Load()) != time.Second {
			t.Errorf("%v; they waited for %s", err, time.Duration(s.waited.Load()))
		}
		s.watch.Wait()
	})
}
