package cluster

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

func (c *Cluster) registerMetrics() error {
	if c.cfg.Registerer == nil {
		return nil
	}
	err := c.cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wasmatrix_raft_is_leader",
		Help: "1 while this node leads the cluster, else 0.",
	}, func() float64 {
		if c.Leadership().Self {
			return 1
		}
		return 0
	}))
	if err != nil {
		return fmt.Errorf("register the metrics of the cluster: %w", err)
	}
	return nil
}
