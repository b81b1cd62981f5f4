package node

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registerMetrics registers the metrics of the process and of what it is. All others are their rooms'.
func (n *node) registerMetrics(nodeID string) {
	is := func(name, help string, labels prometheus.Labels) prometheus.Collector {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
		g.Set(1)
		return g
	}
	n.metrics.MustRegister( // the registry is new, so nothing is in the way
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		is("wasmatrix_build_info", "1, with what the binary was built from.", prometheus.Labels{
			"version": n.cfg.Version, "commit": n.cfg.Commit, "go_version": runtime.Version(),
		}),
		is("wasmatrix_node_info", "1, with the node's name and id.", prometheus.Labels{"node": n.cfg.NodeName, "node_id": nodeID}),
	)
}
