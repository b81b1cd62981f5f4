package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// valuesOf returns what a registry shows, by name and the values of labels; of histograms how much was observed.
func valuesOf(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

func expectValues(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if now, ok := got[name]; !ok || now != v {
			t.Errorf("%s is %v (there: %t), want %v", name, now, ok, v)
		}
	}
}

func TestMetricsTellWhatRanAndCrashed(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := newHost(t, "n1", nil, func(c *Config) { c.Registerer, c.MaxMemory, c.MaxCPU, c.JournalDir = reg, 1<<30, 2500, t.TempDir() })
	hash := h.push(actor(t))
	h.mustStart(spec(hash, "sleep", "1000000"), newID())
	id := newID()
	h.mustStart(spec(hash, "trap"), id)
	h.waitFor(id, crashed)
	again := newID()
	h.mustStart(withPolicy(spec(hash, "trap"), onFailure, 1, time.Millisecond), again)
	h.waitFor(again, crashed)
	if _, err := h.start(spec(hashOf([]byte("nowhere"))), newID(), 1); rpc.CodeOf(err) != rpc.ModuleNotFound {
		t.Fatalf("a module that nobody has: %v", err)
	}
	expectValues(t, valuesOf(t, reg), map[string]float64{
		"wasmatrix_instances running":                              1,
		"wasmatrix_instances crashed":                              2,
		"wasmatrix_instances lost":                                 0,
		"wasmatrix_instance_crash_total":                           3,
		"wasmatrix_instance_restart_total":                         1,
		"wasmatrix_instance_start_failures_total MODULE_NOT_FOUND": 1,
		"wasmatrix_node_agent_health":                              1,
		"wasmatrix_instance_start_seconds fetch":                   3,
		"wasmatrix_instance_start_seconds total":                   3,
		"wasmatrix_instance_start_seconds compile":                 3,
		"wasmatrix_instances_limit":                                10_000,
		"wasmatrix_memory_committed_bytes":                         4 << 20,
		"wasmatrix_memory_limit_bytes":                             1 << 30,
		"wasmatrix_cpu_committed_cores":                            0,
		"wasmatrix_cpu_limit_cores":                                2.5,
		"wasmatrix_module_store_modules":                           1,
		"wasmatrix_module_store_bytes":                             float64(len(actor(t))),
		"wasmatrix_module_fetches_total failed":                    1,
		"wasmatrix_journal_trouble":                                0,
	})
	h.SetLimits(Limits{Instances: 7, Memory: 1 << 20, CPU: 500})
	expectValues(t, valuesOf(t, reg), map[string]float64{"wasmatrix_instances_limit": 7, "wasmatrix_memory_limit_bytes": 1 << 20, "wasmatrix_cpu_limit_cores": 0.5})
}

func TestMetricsTellHowFarVotersFollow(t *testing.T) {
	reg := prometheus.NewRegistry()
	listens, away := newReceiver(t), newReceiver(t)
	away.stop()
	h := newHost(t, "n1", newElectorate(Voter{"v1", listens.addr}, Voter{"v2", away.addr}), func(c *Config) { c.Registerer = reg })
	hash := h.push(actor(t))
	h.mustStart(spec(hash, "sleep", "1000000"), newID())
	eventually(t, "one voter to know all, and one to be missed", func() error {
		got := valuesOf(t, reg)
		if got["wasmatrix_report_streams open"] != 1 || got["wasmatrix_report_streams broken"] != 1 || got["wasmatrix_report_lag_changes"] != 0 || got["wasmatrix_report_stream_breaks_total"] == 0 {
			return fmt.Errorf("%v open, %v broken, lag %v, %v breaks", got["wasmatrix_report_streams open"], got["wasmatrix_report_streams broken"],
				got["wasmatrix_report_lag_changes"], got["wasmatrix_report_stream_breaks_total"])
		}
		return nil
	})
	got := valuesOf(t, reg)
	for _, name := range []string{"wasmatrix_report_messages_total", "wasmatrix_report_bytes_total", "wasmatrix_report_full_total", "wasmatrix_report_silence_seconds", "wasmatrix_events_total"} {
		if got[name] == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	listens.mu.Lock()
	listens.silent = true
	listens.mu.Unlock()
	h.mustStart(spec(hash, "sleep", "1000000"), newID())
	eventually(t, "a voter that answers nothing to lag", func() error {
		if lag := valuesOf(t, reg)["wasmatrix_report_lag_changes"]; lag == 0 {
			return errors.New("no lag")
		}
		return nil
	})
}

func TestReaderThatMissedEventsIsCounted(t *testing.T) {
	f := newFacts("")
	f.record(&pb.Event{EventId: "first"})
	from := f.position()
	for n := range maxEvents {
		f.record(&pb.Event{EventId: fmt.Sprint(n)})
	}
	if f.since(from); f.tally.gaps != 0 {
		t.Error("a reader that missed nothing is counted")
	}
	f.record(&pb.Event{EventId: "last"})
	f.since(from)
	if recorded, gaps := f.eventCounts(); recorded != maxEvents+2 || gaps != 1 {
		t.Errorf("%d events and %d gaps, want %d and 1", recorded, gaps, maxEvents+2)
	}
}

func TestMetricsOfCallsAreThereBeforeAnyCall(t *testing.T) {
	reg := prometheus.NewRegistry()
	newHost(t, "a", nil, func(c *Config) { c.Registerer = reg })
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
	}
	for name, want := range map[string]int{
		"wasmatrix_capability_invocation_latency_seconds": 13, "wasmatrix_capability_denied_total": 12, "wasmatrix_capability_messages_dropped_total": 1,
	} {
		if series[name] != want {
			t.Errorf("%s has %d series, want %d", name, series[name], want)
		}
	}
}
