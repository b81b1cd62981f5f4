package vitals

import (
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// life is one life of an agent, as it counts it.
type life struct {
	boot          int
	began         time.Time
	starts, calls uint64
	errors        uint64
	told          uint64 // starts that were told
	upTo          time.Time
}

func (l *life) load(now time.Time) *pb.NodeLoad {
	return &pb.NodeLoad{
		UpFor: durationpb.New(now.Sub(l.began)), Starts: l.starts, Crashes: l.starts / 2,
		Calls: []*pb.ProviderCalls{{ProviderId: "kv", Errors: l.errors, Latency: []uint64{0, l.calls}}},
	}
}

// However reports come, and however often nodes restart or fall silent, what they told is in the bins once: nothing is lost,
// negative, or faster than a node ever was.
func TestBinsAddUpToWhatNodesCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := NewBoard(start), start
		lives := map[string]*life{}
		var (
			told    uint64
			fastest = map[string]float64{} // the most starts a second that a node told of
		)
		for range rapid.IntRange(1, 170).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(int64(time.Second), int64(30*time.Second)).Draw(t, "later")))
			node := fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "node"))
			switch l := lives[node]; rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2:
				b.Tick(now, map[string]uint32{"running": 1})
			case 3:
				boot := 0
				if l != nil {
					boot = l.boot + 1
				}
				lives[node] = &life{boot: boot, began: now, upTo: now}
			default:
				if l == nil {
					continue
				}
				l.starts += rapid.Uint64Range(0, 1000).Draw(t, "starts")
				l.calls += rapid.Uint64Range(0, 1e6).Draw(t, "calls")
				l.errors = rapid.Uint64Range(l.errors, l.calls).Draw(t, "errors")
				b.Hear(node, fmt.Sprint(l.boot), l.load(now), now)
				told += l.starts - l.told
				fastest[node] = max(fastest[node], float64(l.starts-l.told)/now.Sub(l.upTo).Seconds())
				l.told, l.upTo = l.starts, now
			}
		}
		var most, sum float64
		for _, rate := range fastest {
			most += rate
		}
		b.open.to = now
		for _, bin := range append([]bin{b.open}, b.bins[:]...) {
			sum += bin.starts
			if bin.span() < 0 || bin.starts < 0 || bin.crashes < 0 || bin.all.errors < 0 || bin.all.errors > bin.all.latency.Total()*(1+1e-9) {
				t.Fatalf("a bin is %+v", bin)
			}
			if rate := perSecond(bin.starts, bin.span()); rate > most*(1+1e-9) {
				t.Fatalf("%v starts a second in a bin; the nodes together never had more than %v", rate, most)
			}
		}
		if math.Abs(sum-float64(told)) > 1e-6*float64(told+1) {
			t.Fatalf("the bins add up to %v starts; the nodes told of %d", sum, told)
		}
	})
}

// A count that goes backwards, or a report that comes late, is nobody's crash or negative rate.
func TestCountsNeverShrink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := NewBoard(start), start
		for range rapid.IntRange(1, 50).Draw(t, "reports") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "later")))
			b.Hear("n", rapid.SampledFrom([]string{"a", "b"}).Draw(t, "boot"), &pb.NodeLoad{
				UpFor: durationpb.New(time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "up"))), CpuTime: durationpb.New(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "cpu"))),
				Starts: rapid.Uint64Range(0, 1000).Draw(t, "starts"), Crashes: rapid.Uint64Range(0, 1000).Draw(t, "crashes"),
				Calls: []*pb.ProviderCalls{{ProviderId: "kv", Errors: rapid.Uint64().Draw(t, "errors"), Latency: rapid.SliceOfN(rapid.Uint64Range(0, 1e9), 0, Buckets+5).Draw(t, "latency")}},
			}, now)
			if rapid.Bool().Draw(t, "tick") {
				b.Tick(now, nil)
			}
			if v := b.Node("n", now); v.GetCpuUsedCores() < 0 || math.IsNaN(v.GetCpuUsedCores()) {
				t.Fatalf("the node is %v", v)
			}
		}
		for _, s := range b.History(now.Add(settled)).GetSamples() {
			for name, v := range map[string]float64{
				"starts": s.GetStartsPerSecond(), "crashes": s.GetCrashesPerSecond(), "calls": s.GetCalls().GetCallsPerSecond(), "errors": s.GetCalls().GetErrorsPerSecond(),
			} {
				if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
					t.Fatalf("%s are %v a second in %v", name, v, s)
				}
			}
		}
	})
}

// steady has a node report 100 calls of 10 µs a second, a tenth of them errors, and half a core, every period for so long.
func steady(b *Board, node string, began, from time.Time, long time.Duration) (now time.Time) {
	for now = from; now.Before(from.Add(long)); now = now.Add(Period) {
		up := now.Sub(began)
		latency := make([]uint64, bucket(10*time.Microsecond)+1)
		latency[len(latency)-1] = uint64(100 * up.Seconds())
		b.Hear(node, "boot", &pb.NodeLoad{
			UpFor: durationpb.New(up), CpuTime: durationpb.New(up / 2), CpuCores: 2, ResidentBytes: 7, Starts: uint64(up.Seconds()),
			GuestCpuTime: durationpb.New(up / 4), GuestMemoryBytes: 5,
			Calls: []*pb.ProviderCalls{{ProviderId: "kv", Errors: uint64(10 * up.Seconds()), Latency: latency}},
		}, now)
		b.Tick(now, map[string]uint32{"running": 3})
	}
	return now.Add(-Period)
}

func TestRatesAreThoseOfAllNodesTogether(t *testing.T) {
	b := NewBoard(start)
	began := start.Add(-24 * time.Hour) // long before anybody listened here
	now := steady(b, "a", began, start.Add(Period), 10*time.Minute)
	calls := b.Provider("kv", now)
	if p50, p99 := calls.GetLatencyP50().AsDuration(), calls.GetLatencyP99().AsDuration(); p50 < 8*time.Microsecond || p99 > 12*time.Microsecond ||
		!near(calls.GetCallsPerSecond(), 100) || !near(calls.GetErrorsPerSecond(), 10) {
		t.Errorf("calls of the last minute: %v", calls)
	}
	if other := b.Provider("http", now); other.GetCallsPerSecond() != 0 || other.GetLatencyP50() != nil {
		t.Errorf("a provider that nobody called has %v", other)
	}
	h := b.History(now)
	if len(h.GetSamples()) != 119 || !h.GetSince().AsTime().Equal(start) {
		t.Fatalf("%d samples since %v", len(h.GetSamples()), h.GetSince().AsTime())
	}
	for _, s := range h.GetSamples() {
		if !near(s.GetCalls().GetCallsPerSecond(), 100) || !near(s.GetStartsPerSecond(), 1) || !near(s.GetGuestCpuUsedCores(), 0.25) || s.GetInstances()["running"] != 3 || s.GetSpan().AsDuration() != Period {
			t.Fatalf("a sample is %v", s)
		}
	}
	v := b.Node("a", now)
	if !near(v.GetCpuUsedCores(), 0.5) || !near(v.GetGuestCpuUsedCores(), 0.25) || v.GetGuestMemoryBytes() != 5 || v.GetCpuCores() != 2 || v.GetResidentBytes() != 7 {
		t.Errorf("the node is %v", v)
	}
	if v := b.Node("a", now.Add(fresh+time.Second)); v != nil {
		t.Errorf("long after its last report the node is %v", v)
	}
}

// What a node tells after it could not be heard for minutes is what happened in those minutes.
func TestReportAfterACutRaisesTheBinsOfTheCut(t *testing.T) {
	b := NewBoard(start)
	now := steady(b, "a", start, start.Add(Period), time.Minute)
	for range 36 { // three minutes
		now = now.Add(Period)
		b.Tick(now, nil)
	}
	if n := len(b.History(now).GetSamples()); n != 47 {
		t.Fatalf("%d samples", n)
	}
	now = steady(b, "a", start, now.Add(Period), Period)
	for n, s := range b.History(now).GetSamples() {
		if !near(s.GetCalls().GetCallsPerSecond(), 100) {
			t.Errorf("%v calls a second in sample %d", s.GetCalls().GetCallsPerSecond(), n)
		}
	}
}

func TestHistoryIsOfAQuarterOfAnHour(t *testing.T) {
	b := NewBoard(start)
	now := steady(b, "a", start, start.Add(Period), time.Hour)
	h := b.History(now)
	if n := len(h.GetSamples()); n != int(Window/Period)-1 || now.Sub(h.GetSamples()[0].GetTime().AsTime()) >= Window {
		t.Errorf("%d samples, from %v to %v", n, h.GetSamples()[0].GetTime().AsTime(), now)
	}
	apartBins := 0
	for _, bin := range b.bins {
		if bin.byProvider != nil {
			apartBins++
		}
	}
	if apartBins >= apart {
		t.Errorf("%d bins keep providers apart", apartBins)
	}
	b.Tick(now.Add(Window+Period), nil)
	if len(b.nodes) != 0 {
		t.Errorf("still known: %v", maps.Keys(b.nodes))
	}
	b.Restart(now)
	if h := b.History(now.Add(time.Minute)); len(h.GetSamples()) != 0 || !h.GetSince().AsTime().Equal(now) {
		t.Errorf("after a restart there is %v", h)
	}
}

func near(got, want float64) bool { return math.Abs(got-want) < want/50 }
