package vitals

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestCallsOfManyGuestsAreAllCounted(t *testing.T) {
	const guests, each = 8, 2000
	var (
		c  Calls
		wg sync.WaitGroup
	)
	for g := range guests {
		wg.Go(func() {
			for n := range each {
				c.Add([]string{"kv", "http"}[n%2], time.Duration(n)*time.Microsecond, n%10 == 0)
				if n%100 == g {
					for _, m := range c.Message() {
						if total(m.GetLatency()) < m.GetErrors() {
							t.Errorf("more errors than calls: %v", m)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	all := c.Message()
	if len(all) != 2 || all[0].GetProviderId() != "http" || all[1].GetProviderId() != "kv" {
		t.Fatalf("%v", all)
	}
	if total(all[0].GetLatency()) != guests*each/2 || total(all[1].GetLatency()) != guests*each/2 || all[0].GetErrors() != 0 || all[1].GetErrors() != guests*each/10 {
		t.Errorf("%v", all)
	}
	if last := all[0].GetLatency(); last[len(last)-1] == 0 {
		t.Errorf("zeros at the end: %v", last)
	}
}

func TestProvidersBeyondTheBoundAreNotCounted(t *testing.T) {
	var c Calls
	for n := range 2 * maxProviders {
		c.Add(fmt.Sprint(n), time.Millisecond, false)
	}
	if n := len(c.Message()); n != maxProviders {
		t.Errorf("%d providers are told apart", n)
	}
}

func TestCallsAreSummedUpForAFewDurations(t *testing.T) {
	var c Calls
	c.Add("kv", 3*time.Microsecond, false)
	c.Add("kv", 5*time.Millisecond, true)
	c.Add("kv", time.Minute, true)
	c.Each(func(id string, got Counted) {
		if id != "kv" || got.Calls != 3 || got.Errors != 2 || got.Took != time.Minute+5*time.Millisecond+3*time.Microsecond {
			t.Errorf("%s: %+v", id, got)
		}
		for most, want := range map[time.Duration]uint64{time.Microsecond: 0, 4 * time.Microsecond: 1, 4096 * time.Microsecond: 1, 16384 * time.Microsecond: 2, 16777216 * time.Microsecond: 2} {
			if n, ok := got.AtMost[most]; !ok || n != want {
				t.Errorf("%d calls took at most %s (told: %t), want %d", n, most, ok, want)
			}
		}
		if len(got.AtMost) != 13 {
			t.Errorf("they are told for %d durations", len(got.AtMost))
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	var c Calls
	for b.Loop() {
		c.Add("kv", 3*time.Microsecond, false)
	}
}

func total(counts []uint64) (n uint64) {
	for _, some := range counts {
		n += some
	}
	return n
}
