package provider

import (
	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// collector tells which providers of this node work. There are as many series as there are providers: few.
type collector struct {
	host *Host
	up   *prometheus.Desc
}

var _ prometheus.Collector = (*collector)(nil)

func newCollector(h *Host) *collector {
	return &collector{h, prometheus.NewDesc("wasmatrix_provider_up",
		"1 while a provider that this node runs works, else 0. Of one whose keys are replicated wasmatrix_kv_replica_is_leader tells.",
		[]string{"provider_id", "provider_type"}, nil)}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) { to <- c.up }

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	h := c.host
	h.mu.RLock()
	entries := h.entries
	h.mu.RUnlock()
	for id, e := range entries {
		running := e.told.GetState() == pb.ProviderState_PROVIDER_STATE_RUNNING
		if !running || e.here == nil && (e.bad == nil || !h.isAmong(e.places)) {
			continue // it is not this node's
		}
		up := 0.0
		if e.here != nil {
			if _, err := e.here.engine(); err == nil {
				up = 1
			}
		}
		to <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, id, e.def.Type)
	}
}
