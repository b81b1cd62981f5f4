package agent

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsTellWhatRanAndCrashed(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := newHost(t, "n1", nil, func(c *Config) { c.Registerer = reg })
	hash := h.push(actor(t))
	h.mustStart(spec(hash, "sleep", "1000000"), newID())
	id := newID()
	h.mustStart(spec(hash, "trap"), id)
	h.waitFor(id, crashed)

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
	for name, want := range map[string]float64{
		"wasmatrix_instances running":              1,
		"wasmatrix_instances crashed":              1,
		"wasmatrix_instances lost":                 0,
		"wasmatrix_instance_crash_total":           1,
		"wasmatrix_node_agent_health":              1,
		"wasmatrix_instance_start_seconds fetch":   2,
		"wasmatrix_instance_start_seconds total":   2,
		"wasmatrix_instance_start_seconds compile": 2,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %t), want %v", name, v, ok, want)
		}
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
