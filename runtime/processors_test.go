package runtime

import (
	"context"
	goruntime "runtime"
	"sync"
	"testing"
)

func TestProcessorsAreRaisedOnce(t *testing.T) {
	before := goruntime.GOMAXPROCS(0)
	defer goruntime.GOMAXPROCS(before)
	for _, fixed := range []bool{true, false} {
		p := &processors{fixed: fixed}
		var all sync.WaitGroup
		for n := range 6 {
			all.Go(func() { p.spare(2 - n%3) })
		}
		all.Wait()
		want := before
		if !fixed {
			want += 2
		}
		if got := goruntime.GOMAXPROCS(0); got != want {
			t.Errorf("fixed %v: Go has %d processors, want %d", fixed, got, want)
		}
	}
}

// An engine that may raise them adds one for guests that are metered, and more once one is not.
func TestGuestsHaveProcessorsRaised(t *testing.T) {
	before := goruntime.GOMAXPROCS(0)
	defer goruntime.GOMAXPROCS(before)
	e, err := New(t.Context(), Config{RaiseProcessors: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	oddly := section(10, 1, 6, 0, 0x02, 0xc0, 0x7f, 0x0b, 0x0b) // a block whose type is spelled in two bytes
	for _, c := range []struct {
		code    []byte
		metered bool
		spare   int
	}{{emptyCode, true, spareProcessors}, {oddly, false, spareUnmetered}, {emptyCode, true, spareUnmetered}} {
		m, err := compileBytes(e, tiny(oneFunction, exportStart, c.code))
		if err != nil {
			t.Fatal(err)
		}
		run(t, e, m, Spec{})
		if got := goruntime.GOMAXPROCS(0); m.metered != c.metered || got != before+c.spare {
			t.Errorf("metered: %v, want %v; Go has %d processors, want %d", m.metered, c.metered, got, before+c.spare)
		}
		m.Release()
	}
}
