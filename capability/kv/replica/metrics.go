package replica

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows what the group is at the moment of the question.
type collector struct{ *Group }

var (
	leaderDesc = prometheus.NewDesc("wasmatrix_kv_replica_is_leader", "1 while this node leads the replicated keys, else 0.", nil, nil)
	indexDesc  = prometheus.NewDesc("wasmatrix_kv_replica_applied_index", "Newest entry of the replicated keys' log that this node has applied.", nil, nil)
)

// Describe names the metrics.
func (c collector) Describe(to chan<- *prometheus.Desc) { to <- leaderDesc; to <- indexDesc }

// Collect gives their values; none for a node that is in no group.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.current()
	if s == nil {
		return
	}
	leads := 0.0
	if s.leads() {
		leads = 1
	}
	to <- prometheus.MustNewConstMetric(leaderDesc, prometheus.GaugeValue, leads)
	to <- prometheus.MustNewConstMetric(indexDesc, prometheus.GaugeValue, float64(s.raft.AppliedIndex()))
}

func (g *Group) registerMetrics() error {
	if g.cfg.Registerer == nil {
		return nil
	}
	err := g.cfg.Registerer.Register(collector{g})
	if _, twice := errors.AsType[prometheus.AlreadyRegisteredError](err); err != nil && !twice {
		return fmt.Errorf("register the metrics of the replicas: %w", err)
	}
	return nil
}

func (g *Group) unregisterMetrics() {
	if g.cfg.Registerer != nil {
		g.cfg.Registerer.Unregister(collector{g})
	}
}
