package runtime

import (
	"context"
	"fmt"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// BenchmarkBesideSpinningGuests measures what sixteen guests that never rest leave to the others: how long a collection of all garbage
// takes beside them, how late a sleep ends, how long a stop takes, and how evenly they share the cores.
//
// With as many of Go's processors as there are cores; with more, as agents have them; and with those that they have beside guests that
// can't be metered (decision 005).
func BenchmarkBesideSpinningGuests(b *testing.B) {
	for _, spare := range []int{0, spareProcessors, spareUnmetered} {
		b.Run(fmt.Sprintf("spare=%d", spare), func(b *testing.B) { besideSpinningGuests(b, spare) })
	}
}

func besideSpinningGuests(b *testing.B, spare int) {
	b.Helper()
	const guests = 16
	e := newEngine(b)
	defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(0) + spare))
	m := compile(b, e, guest.Actor(b))
	var running sync.WaitGroup
	var works []*work
	var cancels []context.CancelFunc
	for range guests {
		ctx, cancel := context.WithCancel(context.Background())
		i, err := e.Instantiate(ctx, m, Spec{Name: "spin", Args: []string{"actor", "spin"}, MemoryLimit: 1 << 24})
		if err != nil {
			b.Fatal(err)
		}
		works, cancels = append(works, i.host.work), append(cancels, cancel)
		running.Go(func() { i.Run(ctx) })
	}
	<-time.After(time.Second)
	used := func() (all []time.Duration) {
		e.turns.mu.Lock()
		defer e.turns.mu.Unlock()
		for _, w := range works {
			all = append(all, w.turn.used)
		}
		return all
	}
	before := used()
	var collections, late []time.Duration
	began := time.Now()
	for b.Loop() {
		at := time.Now()
		goruntime.GC()
		collections = append(collections, time.Since(at))
		at = time.Now()
		<-time.After(time.Millisecond)
		late = append(late, time.Since(at)-time.Millisecond)
	}
	for time.Since(began) < 2*time.Second {
		<-time.After(100 * time.Millisecond)
	}
	var shares []time.Duration
	for n, u := range used() {
		shares = append(shares, u-before[n])
	}
	slices.Sort(shares)
	at := time.Now()
	for _, cancel := range cancels {
		cancel()
	}
	running.Wait()
	b.ReportMetric(time.Since(at).Seconds()*1000, "stop-all-ms")
	slices.Sort(collections)
	slices.Sort(late)
	b.ReportMetric(collections[len(collections)/2].Seconds()*1000, "gc-ms")
	b.ReportMetric(collections[len(collections)-1].Seconds()*1000, "gc-worst-ms")
	b.ReportMetric(late[len(late)/2].Seconds()*1000, "late-ms")
	b.ReportMetric(late[len(late)-1].Seconds()*1000, "late-worst-ms")
	b.ReportMetric(float64(shares[len(shares)-1])/float64(shares[0]), "most/least")
}
