package runtime

import (
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
