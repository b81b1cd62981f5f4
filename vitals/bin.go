package vitals

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// bin is what happened on all nodes within a few seconds. Counts are fractions: a report is of more bins than one.
type bin struct {
	from, to        time.Time
	instances       map[string]uint32 // at its end, by status
	starts, crashes float64
	guestCPU        float64 // seconds that guests computed
	all             calling
	byProvider      map[string]*calling
}

// calling is the calls to one provider, or to all.
type calling struct {
	errors  float64
	latency Latency
}

// growth is what a node counted between two of its reports.
type growth struct {
	starts, crashes float64
	guestCPU        float64             // seconds
	calls           map[string]*calling // by provider
}

// grown returns what a node counted from one report of a life to another; from nil, from its start.
func grown(from, to *pb.NodeLoad) growth {
	g := growth{
		starts: more(from.GetStarts(), to.GetStarts()), crashes: more(from.GetCrashes(), to.GetCrashes()),
		guestCPU: max(0, to.GetGuestCpuTime().AsDuration()-from.GetGuestCpuTime().AsDuration()).Seconds(),
		calls:    make(map[string]*calling, len(to.GetCalls())),
	}
	before := make(map[string]*pb.ProviderCalls, len(from.GetCalls()))
	for _, c := range from.GetCalls() {
		before[c.GetProviderId()] = c
	}
	for _, c := range to.GetCalls() {
		old, some := before[c.GetProviderId()], &calling{}
		for b, n := range c.GetLatency()[:min(len(c.GetLatency()), Buckets)] {
			was := uint64(0)
			if b < len(old.GetLatency()) {
				was = old.GetLatency()[b]
			}
			some.latency[b] = more(was, n)
		}
		// The counts are read one after the other, so that there may be an error more than calls.
		some.errors = min(more(old.GetErrors(), c.GetErrors()), some.latency.Total())
		g.calls[c.GetProviderId()] = some
	}
	return g
}

// more is how much a count has grown; a count never shrinks.
func more(from, to uint64) float64 {
	if to < from {
		return 0
	}
	return float64(to - from)
}

func (b *bin) span() time.Duration { return b.to.Sub(b.from) }

// add takes the bin's share of what was counted between two moments; with apart, providers are kept apart.
func (b *bin) add(g growth, from, to time.Time, apart bool) {
	share := overlap(b.from, b.to, from, to).Seconds() / to.Sub(from).Seconds()
	if share <= 0 {
		return
	}
	b.starts += share * g.starts
	b.crashes += share * g.crashes
	b.guestCPU += share * g.guestCPU
	for id, c := range g.calls {
		if c.latency.Total() == 0 {
			continue
		}
		b.all.add(c, share)
		if !apart {
			continue
		}
		if b.byProvider == nil {
			b.byProvider = map[string]*calling{}
		}
		if b.byProvider[id] == nil {
			b.byProvider[id] = &calling{}
		}
		b.byProvider[id].add(c, share)
	}
}

// overlap is how much time two spans share; negative where they share none.
func overlap(from, to, since, until time.Time) time.Duration {
	if since.After(from) {
		from = since
	}
	if until.Before(to) {
		to = until
	}
	return to.Sub(from)
}

func (c *calling) add(more *calling, share float64) {
	c.errors += share * more.errors
	for b, n := range more.latency {
		c.latency[b] += share * n
	}
}

// rates returns how fast calls came within a span.
func (c *calling) rates(span time.Duration) *pb.CallRates {
	r := &pb.CallRates{CallsPerSecond: perSecond(c.latency.Total(), span), ErrorsPerSecond: perSecond(c.errors, span)}
	if p50, some := c.latency.Quantile(0.5); some {
		p99, _ := c.latency.Quantile(0.99)
		r.LatencyP50, r.LatencyP99 = durationpb.New(p50), durationpb.New(p99)
	}
	return r
}

func perSecond(n float64, span time.Duration) float64 {
	if span <= 0 {
		return 0
	}
	return n / span.Seconds()
}

func (b *bin) message() *pb.HistorySample {
	return &pb.HistorySample{
		Time: timestamppb.New(b.to), Span: durationpb.New(b.span()), Instances: b.instances,
		StartsPerSecond: perSecond(b.starts, b.span()), CrashesPerSecond: perSecond(b.crashes, b.span()), Calls: b.all.rates(b.span()),
		GuestCpuUsedCores: perSecond(b.guestCPU, b.span()),
	}
}
