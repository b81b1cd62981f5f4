package runtime

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Over whatever time, a guest computes for no longer than its share; and one that never rests by itself gets all of it, though its pauses
// end late.
func TestGuestIsKeptToItsShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.IntRange(1, 1000).Draw(t, "share")
		of := func(d time.Duration) time.Duration { return time.Duration(int64(d) * int64(share) / 1000) }
		p := pace{share: share, paid: -mostCredit}
		rests := rapid.Bool().Draw(t, "it rests at times")
		most := rapid.SampledFrom([]time.Duration{quantum, 3 * quantum, 5 * time.Millisecond}).Draw(t, "the longest piece")
		type moment struct{ now, computed time.Duration }
		past := []moment{{}}
		var now, computed time.Duration
		for range rapid.IntRange(1, 300).Draw(t, "pieces") {
			piece := rapid.Custom(func(t *rapid.T) time.Duration {
				return time.Duration(rapid.Int64Range(1, int64(most)).Draw(t, "piece"))
			}).Draw(t, "piece")
			now, computed = now+piece, computed+piece
			for _, then := range past {
				if got, may := computed-then.computed, of(now-then.now+mostCredit)+most; got > may {
					t.Fatalf("with a share of %d it computed for %s in %s", share, got, now-then.now)
				}
			}
			pause := p.pause(now, computed)
			if limit := pauseFor + most*1000/time.Duration(share); pause > limit {
				t.Fatalf("with a share of %d it is to pause for %s, after pieces of %s", share, pause, most)
			}
			if pause > 0 {
				late := time.Duration(rapid.Int64Range(0, int64(pauseFor)).Draw(t, "late by"))
				now += pause + late
				if less := of(now) - computed; !rests && less > of(pauseFor+mostCredit) {
					t.Fatalf("with a share of %d it has computed for %s of %s", share, computed, now)
				}
			} else if rests {
				now += time.Duration(rapid.Int64Range(0, int64(5*pauseFor)).Draw(t, "rest"))
			}
			past = append(past, moment{now, computed})
		}
	})
}

// spin has a guest compute as real ones do, until its time is over.
func (w *work) spin(ctx context.Context) {
	defer func() { _ = recover() }() // refill ends a guest by a panic
	defer w.end()
	if w.begin(ctx) != nil {
		return
	}
	for {
		time.Sleep(quantum)
		w.refill(ctx, -1)
	}
}

func TestPlaceOfAGuestThatPausesGoesToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{turns: newTurns(1)}
		m := &Module{metered: true}
		capped, other := e.newWork(m, Spec{Share: 250, Cap: true}), e.newWork(m, Spec{Share: 50})
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
		defer stop()
		var run sync.WaitGroup
		for _, w := range []*work{capped, other} {
			run.Go(func() { w.spin(ctx) })
		}
		run.Wait()
		if got := capped.turn.cpu.read(); got < 950*time.Millisecond || got > 1050*time.Millisecond {
			t.Errorf("it computed for %s, and may for a quarter of 4s", got)
		}
		if all := capped.turn.cpu.read() + other.turn.cpu.read(); all < 3990*time.Millisecond {
			t.Errorf("both computed for %s of 4s", all)
		}
		nobodyIsLeft(t, e.turns, 1)
	})
}

func TestPauseEndsWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{turns: newTurns(1)}
		w := e.newWork(&Module{metered: true}, Spec{Share: 1, Cap: true}) // which pauses for 100 ms at a time
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { w.spin(ctx) })
		time.Sleep(50 * time.Millisecond)
		stopped := time.Now()
		stop()
		run.Wait()
		if took := time.Since(stopped); took != 0 {
			t.Errorf("it ended %s after it was told to", took)
		}
		nobodyIsLeft(t, e.turns, 1)
	})
}
