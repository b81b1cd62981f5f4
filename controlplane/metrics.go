package controlplane

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// metrics is what a control plane counts.
type metrics struct {
	recovery                          prometheus.Histogram
	losses, doubles                   prometheus.Counter
	refusedFull, refusedUnfit         prometheus.Counter
	relocations, relocationsFailed    prometheus.Counter
	repairs, repairsFailed            prometheus.Counter
	gaps                              prometheus.Counter
	refusals, relocated, modulesAgain *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(label, name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		recovery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wasmatrix_recovery_seconds",
			Help: "How long this node, when it became the leader, took until it knew what runs.",
			// From a hand-over between three idle nodes to far beyond the window of two seconds.
			Buckets: prometheus.ExponentialBucketsRange(0.005, 20, 13),
		}),
		losses:       counter("wasmatrix_node_losses_total", "Nodes that this one declared lost while it led."),
		doubles:      counter("wasmatrix_doubles_stopped_total", "Instances that this node had stopped while it led, since they ran elsewhere by better right."),
		gaps:         counter("wasmatrix_report_gaps_total", "How often an agent's report did not follow on what this node knew of it, so that it had to begin anew."),
		refusals:     vec("reason", "wasmatrix_placement_refusals_total", "Starts and moves that this node refused while it led, since no node was fit for them or those that are were full."),
		relocated:    vec("result", "wasmatrix_relocations_total", "Instances that this node moved while it led, off lost or draining nodes, by result; what fails is tried again."),
		modulesAgain: vec("result", "wasmatrix_module_repairs_total", "Copies of modules that this node had others fetch while it led, since they lacked what is referenced, by result."),
	}
	m.refusedFull, m.refusedUnfit = m.refusals.WithLabelValues("full"), m.refusals.WithLabelValues("unfit")
	m.relocations, m.relocationsFailed = m.relocated.WithLabelValues("ok"), m.relocated.WithLabelValues("failed")
	m.repairs, m.repairsFailed = m.modulesAgain.WithLabelValues("ok"), m.modulesAgain.WithLabelValues("failed")
	return m
}

func (s *Server) registerMetrics() error {
	if s.cfg.Registerer == nil {
		return nil
	}
	m := s.metrics
	for _, c := range []prometheus.Collector{
		m.recovery, m.losses, m.doubles, m.gaps, m.refusals, m.relocated, m.modulesAgain,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wasmatrix_reporting_agents", Help: "Agents that report to this node, which is all of them on a voter.",
		}, func() float64 { return float64(s.reporters.count()) }),
		newLeaderCollector(s),
	} {
		if err := s.cfg.Registerer.Register(c); err != nil {
			return fmt.Errorf("register the metrics of the control plane: %w", err)
		}
	}
	return nil
}

// leaderCollector tells of the whole cluster, on the leader alone: so each is told once, and by who knows best.
type leaderCollector struct {
	server                                                  *Server
	recovering, missing, nodes, instances, waiting, modules *prometheus.Desc
}

var _ prometheus.Collector = (*leaderCollector)(nil)

func newLeaderCollector(s *Server) *leaderCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &leaderCollector{
		server:     s,
		recovering: desc("wasmatrix_cluster_recovering", "1 while a new leader is asking the agents what they run, else 0; on the leader only."),
		missing:    desc("wasmatrix_cluster_missing_nodes", "Nodes whose instances the leader does not know for sure; on the leader only."),
		nodes:      desc("wasmatrix_cluster_nodes", "Nodes of the cluster by their state, as in wasmatrix members; on the leader only.", "state"),
		instances:  desc("wasmatrix_cluster_instances", "Instances of the cluster by status, ended ones included while they are kept; on the leader only.", "status"),
		waiting:    desc("wasmatrix_cluster_waiting_instances", "Instances of lost nodes that no other node has taken yet; on the leader only."),
		modules:    desc("wasmatrix_cluster_lost_modules", "Modules that instances need and that no node holds; on the leader only."),
	}
}

// Describe implements [prometheus.Collector].
func (c *leaderCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.recovering, c.missing, c.nodes, c.instances, c.waiting, c.modules} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *leaderCollector) Collect(to chan<- prometheus.Metric) {
	s := c.server
	l, err := s.leading()
	if err != nil {
		return
	}
	tell := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	recovering := 0.0
	if l.recovering() {
		recovering = 1
	}
	tell(c.recovering, recovering)
	tell(c.missing, float64(len(s.missing(l))))
	states := map[string]int{"alive": 0, "suspect": 0, "draining": 0, "dead": 0, "left": 0}
	for _, m := range s.members() {
		states[m.GetState()]++
	}
	for state, n := range states {
		tell(c.nodes, float64(n), state)
	}
	counts := s.view.counts()
	for n := range pb.InstanceStatus_name {
		if status := pb.InstanceStatus(n); status != pb.InstanceStatus_INSTANCE_STATUS_UNSPECIFIED {
			tell(c.instances, float64(counts[fact.StatusName(status)]), fact.StatusName(status))
		}
	}
	waiting, _ := s.view.homeless()
	tell(c.waiting, float64(len(waiting)))
	l.mu.Lock()
	lost := l.lostModules
	l.mu.Unlock()
	tell(c.modules, float64(lost))
}
