package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// metrics is what the agent counts. Gauges are read from the facts when somebody asks.
type metrics struct {
	crashes                            prometheus.Counter
	fetch, compile, instantiate, total prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, a *Agent) (*metrics, error) {
	crashes := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wasmatrix_instance_crash_total",
		Help: "How often instances of this node ended by a trap or with another exit code than 0.",
	})
	start := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "wasmatrix_instance_start_seconds",
		Help: "What the starts of instances took, by phase; total is from the order to running.",
		// From an instantiation of a small guest to a large module over a slow network.
		Buckets: prometheus.ExponentialBucketsRange(0.0001, 30, 16),
	}, []string{"phase"})
	m := &metrics{
		crashes:     crashes,
		fetch:       start.WithLabelValues("fetch"),
		compile:     start.WithLabelValues("compile"),
		instantiate: start.WithLabelValues("instantiate"),
		total:       start.WithLabelValues("total"),
	}
	if reg == nil {
		return m, nil
	}
	health := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wasmatrix_node_agent_health",
		Help: "1 while this node's agent works and its disk takes its journal, else 0.",
	}, func() float64 {
		if a.healthy.Load() && (a.journal == nil || a.journal.Trouble() == nil) {
			return 1
		}
		return 0
	})
	for _, c := range []prometheus.Collector{crashes, start, health, newStatusCollector(a.facts), a.calls.latency, a.calls.denials, a.calls.dropped} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// statusCollector tells how many instances have each status.
type statusCollector struct {
	facts *facts
	desc  *prometheus.Desc
}

var _ prometheus.Collector = statusCollector{}

func newStatusCollector(f *facts) statusCollector {
	return statusCollector{f, prometheus.NewDesc("wasmatrix_instances",
		"The instances of this node by status, ended ones included while they are kept.", []string{"status"}, nil)}
}

// Describe implements [prometheus.Collector].
func (c statusCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements [prometheus.Collector]. It tells of every status, so that none goes missing
// when its last instance does.
func (c statusCollector) Collect(out chan<- prometheus.Metric) {
	counts := c.facts.countByStatus()
	for n := range pb.InstanceStatus_name {
		s := pb.InstanceStatus(n)
		if s == pb.InstanceStatus_INSTANCE_STATUS_UNSPECIFIED {
			continue
		}
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(counts[s]), fact.StatusName(s))
	}
}
