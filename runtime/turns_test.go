package runtime

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// compute has a guest compute for so long, making room as metered guests do.
func compute(ctx context.Context, turn *turn, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(quantum)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := turn.pass(ctx); err != nil {
			return err
		}
	}
	return nil
}

// nobodyIsLeft fails unless all places are free, and nobody waits.
func nobodyIsLeft(t *testing.T, s *turns, places int) {
	t.Helper()
	s.watch.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free != places || len(s.holders) != 0 || len(s.waiting) != 0 || s.waits.Load() != 0 {
		t.Errorf("%d of %d places are free, %d are held, %d wait", s.free, places, len(s.holders), len(s.waiting))
	}
}

func TestGuestsThatNeverRestShareAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, guests = 3, 10
		s := newTurns(places)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		var all []*turn
		var run sync.WaitGroup
		for range guests {
			turn := s.turn(0)
			all = append(all, turn)
			run.Go(func() {
				if turn.enter(ctx) == nil {
					_ = compute(ctx, turn, time.Hour) // until the time is over
				}
				turn.leave()
			})
		}
		run.Wait()
		for _, turn := range all {
			if even := time.Second * places / guests; turn.used < even-3*lead || turn.used > even+3*lead {
				t.Errorf("one has computed for %s, and a fair share is %s", turn.used, even)
			}
		}
		nobodyIsLeft(t, s, places)
	})
}

// Who has rested comes first, though many compute, but does not catch up on what was missed.
func TestGuestThatRestedComesNextButIsNotPaidForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		for range 5 {
			turn := s.turn(0)
			run.Go(func() {
				if turn.enter(ctx) == nil {
					_ = compute(ctx, turn, time.Hour)
				}
				turn.leave()
			})
		}
		time.Sleep(10 * time.Second)
		late := s.turn(0)
		for range 10 {
			asked := time.Now()
			if err := late.enter(ctx); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(asked); waited > lead+quantum {
				t.Errorf("it waited for %s", waited)
			}
			time.Sleep(quantum) // computes
			late.leave()
			time.Sleep(time.Second) // rests
		}
		if err := late.enter(ctx); err != nil {
			t.Fatal(err)
		}
		for alone := time.Duration(0); ; alone += quantum {
			time.Sleep(quantum)
			asked := time.Now()
			if err := late.pass(ctx); err != nil {
				t.Fatal(err)
			}
			if time.Since(asked) > 0 {
				break // others computed
			}
			if alone > 4*lead {
				t.Fatalf("it computes for %s in one go, while five others wait", alone)
			}
		}
		late.leave()
		stop()
		run.Wait()
		nobodyIsLeft(t, s, 1)
	})
}

func TestPlaceOfAGuestThatWaitsInACallGoesToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		ctx := t.Context()
		caller, other := s.turn(0), s.turn(0)
		if err := caller.enter(ctx); err != nil {
			t.Fatal(err)
		}
		caller.beginCall()
		if err := caller.endCall(ctx); err != nil { // nobody wants the place
			t.Fatal(err)
		}
		caller.beginCall()
		asked := time.Now()
		if err := other.enter(ctx); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(asked); waited == 0 || waited > 3*retakeEvery {
			t.Errorf("the other got the place after %s", waited)
		}
		back := make(chan error)
		go func() { back <- caller.endCall(ctx) }()
		synctest.Wait()
		select {
		case err := <-back:
			t.Errorf("both compute (%v), and there is one place", err)
		default:
		}
		other.leave()
		if err := <-back; err != nil {
			t.Error(err)
		}
		caller.leave()
		nobodyIsLeft(t, s, 1)
	})
}

func TestQuickCallsKeepThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		caller, other := s.turn(0), s.turn(0)
		if err := caller.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, give := context.WithCancel(t.Context())
		gave := make(chan error)
		go func() { gave <- other.enter(ctx) }()
		for range 1000 {
			caller.beginCall()
			time.Sleep(retakeEvery / 10)
			if err := caller.endCall(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if caller.calls.Load() != 2000 {
			t.Errorf("%d beginnings and ends of calls, want 2000", caller.calls.Load())
		}
		give()
		if err := <-gave; err == nil {
			t.Error("the other got a place that was kept")
		}
		caller.leave()
		nobodyIsLeft(t, s, 1)
	})
}

// Whatever guests do, never more compute than there are places, and no place is lost.
func TestPlacesAreNeitherLostNorDoubled(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			const places, guests = 2, 7
			s := newTurns(places)
			var run sync.WaitGroup
			for n := range uint64(guests) {
				run.Go(func() {
					random := rand.New(rand.NewPCG(seed, n))
					for range 5 {
						ctx, stop := context.WithTimeout(t.Context(), time.Duration(random.IntN(20))*time.Millisecond)
						live(ctx, s, random)
						stop()
					}
				})
			}
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				for range 2000 {
					s.mu.Lock()
					if held := len(s.holders); held+s.free != places {
						t.Errorf("seed %d: %d places are held and %d are free", seed, held, s.free)
					}
					s.mu.Unlock()
					time.Sleep(50 * time.Microsecond)
				}
			}()
			run.Wait()
			<-watched
			nobodyIsLeft(t, s, places)
		})
	}
}

// live is one guest's life: it computes, calls and rests, until its time is over.
func live(ctx context.Context, s *turns, random *rand.Rand) {
	turn := s.turn(0)
	if turn.enter(ctx) != nil {
		return
	}
	defer turn.leave()
	for {
		d := time.Duration(random.IntN(3000)) * time.Microsecond
		switch random.IntN(3) {
		case 0:
			if compute(ctx, turn, d) != nil {
				return
			}
		case 1:
			turn.beginCall()
			time.Sleep(d)
			if turn.endCall(ctx) != nil {
				return
			}
		case 2:
			turn.leave()
			time.Sleep(d)
			if turn.enter(ctx) != nil {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// A guest that is stopped while it sleeps has no place to give back, and its sleep is no computing: others would wait for as long.
func TestSleepOfAStoppedGuestIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		sleeper := s.turn(0)
		if err := sleeper.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		sleeper.leave()
		time.Sleep(time.Hour)
		sleeper.leave() // its run has ended
		if sleeper.used > time.Second || s.floor > time.Second {
			t.Errorf("it has computed for %s, and others begin at %s", sleeper.used, s.floor)
		}
		nobodyIsLeft(t, s, 1)
	})
}

// Who computes while nobody else does is not made to wait for as long, once others come.
func TestWhoComputedAloneDoesNotPayForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(1)
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		first := s.turn(0)
		start := func(turn *turn) {
			run.Go(func() {
				if turn.enter(ctx) == nil {
					_ = compute(ctx, turn, time.Hour)
				}
				turn.leave()
			})
		}
		start(first)
		time.Sleep(10 * time.Second)
		before := first.cpu.read()
		for range 3 {
			start(s.turn(0))
		}
		time.Sleep(time.Second)
		if got := first.cpu.read() - before; got < 250*time.Millisecond-3*lead || got > 250*time.Millisecond+3*lead {
			t.Errorf("beside three others it got %s of a second", got)
		}
		stop()
		run.Wait()
		nobodyIsLeft(t, s, 1)
	})
}

func TestGuestsGetWhatTheirSharesSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(2)
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
		defer stop()
		var run sync.WaitGroup
		var all []*turn
		for _, share := range []int{100, 100, 300, 300, 0, 50, 50} { // of 1000 in all, and two seconds for each
			turn := s.turn(share)
			all = append(all, turn)
			run.Go(func() {
				if turn.enter(ctx) == nil {
					_ = compute(ctx, turn, time.Hour)
				}
				turn.leave()
			})
		}
		run.Wait()
		for _, turn := range all {
			if want := time.Duration(turn.share) * 8 * time.Millisecond; turn.cpu.read() < want-3*lead || turn.cpu.read() > want+3*lead {
				t.Errorf("with a share of %d it has computed for %s, want %s", turn.share, turn.cpu.read(), want)
			}
		}
		nobodyIsLeft(t, s, 2)
	})
}
