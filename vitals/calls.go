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
	if failed {
		to.errors.Add(1)
	}
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
