package vitals

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// maxProviders bounds how many providers are told apart. Further ones are not counted, which no cluster has yet.
const maxProviders = 256

// Calls counts what guests of one node ask of providers. It is safe for concurrent use, and the zero value is ready.
type Calls struct {
	of sync.Map // provider id to *calls
	n  atomic.Int32
}

// calls are those to one provider.
type calls struct {
	errors  atomic.Uint64
	latency [Buckets]atomic.Uint64
	took    atomic.Int64 // all of them, in nanoseconds
}

// Add counts a call.
func (c *Calls) Add(providerID string, took time.Duration, failed bool) {
	of, ok := c.of.Load(providerID)
	if !ok {
		if c.n.Load() >= maxProviders {
			return
		}
		if of, ok = c.of.LoadOrStore(providerID, &calls{}); !ok {
			c.n.Add(1)
		}
	}
	to := of.(*calls)
	to.latency[bucket(took)].Add(1)
	to.took.Add(int64(took))
	if failed {
		to.errors.Add(1)
	}
}

// Counted is what was counted of one provider.
type Counted struct {
	Calls, Errors uint64
	Took          time.Duration // all calls together
	// AtMost is how many calls took at most so long, for a few durations, each four times the one before.
	AtMost map[time.Duration]uint64
}

// boundEvery is how many buckets make one of [Counted]: two octaves.
const boundEvery = 4

// Each calls f with what was counted so far of each provider.
func (c *Calls) Each(f func(providerID string, counted Counted)) {
	c.of.Range(func(id, of any) bool {
		to := of.(*calls)
		counted := Counted{Errors: to.errors.Load(), Took: time.Duration(to.took.Load()), AtMost: map[time.Duration]uint64{}}
		for b := range to.latency {
			counted.Calls += to.latency[b].Load()
			if end := b + 1; b%boundEvery == 0 && end < Buckets {
				counted.AtMost[lower(end)] = counted.Calls
			}
		}
		f(id.(string), counted)
		return true
	})
}

// Message returns what was counted so far, by provider.
func (c *Calls) Message() (all []*pb.ProviderCalls) {
	c.of.Range(func(id, of any) bool {
		to := of.(*calls)
		m := &pb.ProviderCalls{ProviderId: id.(string), Errors: to.errors.Load()} // a call's latency is counted first, so none fails more than once
		end := 0
		counts := make([]uint64, Buckets)
		for b := range counts {
			if counts[b] = to.latency[b].Load(); counts[b] > 0 {
				end = b + 1
			}
		}
		m.Latency = counts[:end]
		all = append(all, m)
		return true
	})
	slices.SortFunc(all, func(a, b *pb.ProviderCalls) int { return strings.Compare(a.GetProviderId(), b.GetProviderId()) })
	return all
}
