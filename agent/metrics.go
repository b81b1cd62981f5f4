package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/vitals"
)

// metrics is what the agent counts. Gauges are read from memory when somebody asks, and never from the disk: one that hangs must
// not hide what /metrics says of it.
type metrics struct {
	restarts                           prometheus.Counter
	fetch, compile, instantiate, total prometheus.Observer
	startFailures                      *prometheus.CounterVec // by error code

	fetched, fetchFailed, fetchedBytes prometheus.Counter
	deletedModules, damagedModules     prometheus.Counter

	broken, reports, reportBytes, fullReports prometheus.Counter
	witness                                   prometheus.Observer
	unwitnessed                               prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, a *Agent) (*metrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		all = append(all, c)
		return c
	}
	start := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "wasmatrix_instance_start_seconds",
		Help: "What the starts of instances took, by phase; total is from the order to running.",
		// From an instantiation of a small guest to a large module over a slow network.
		Buckets: prometheus.ExponentialBucketsRange(0.0001, 30, 16),
	}, []string{"phase"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wasmatrix_instance_start_failures_total",
		Help: "Orders to start an instance that this node refused or failed, by error code.",
	}, []string{"code"})
	for _, code := range []rpc.Code{rpc.InvalidRequest, rpc.ModuleNotFound, rpc.ResourceExhausted, rpc.Timeout, rpc.CommunicationFailure, rpc.Internal} {
		failures.WithLabelValues(string(code))
	}
	fetches := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wasmatrix_module_fetches_total",
		Help: "Modules that this node fetched from others, by result.",
	}, []string{"result"})
	witness := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "wasmatrix_witness_wait_seconds",
		Help: "How long answers to orders waited until most voters knew what this node had done.",
		// From voters that know already to one over a slow network.
		Buckets: prometheus.ExponentialBucketsRange(0.0001, 10, 14),
	})
	all = append(all, start, failures, fetches, witness, a.calls.latency, a.calls.denials, a.calls.dropped)
	m := &metrics{
		restarts:       counter("wasmatrix_instance_restart_total", "How often instances of this node were started again by their policy, or after the node's restart."),
		fetch:          start.WithLabelValues("fetch"),
		compile:        start.WithLabelValues("compile"),
		instantiate:    start.WithLabelValues("instantiate"),
		total:          start.WithLabelValues("total"),
		startFailures:  failures,
		fetched:        fetches.WithLabelValues("ok"),
		fetchFailed:    fetches.WithLabelValues("failed"),
		fetchedBytes:   counter("wasmatrix_module_fetched_bytes_total", "Bytes of modules that this node got from other nodes, those of broken transfers included."),
		deletedModules: counter("wasmatrix_module_deletions_total", "Modules that this node deleted, since nothing references them any more or by order."),
		damagedModules: counter("wasmatrix_module_damaged_total", "Modules that were not what their names say when they were read from this node's disk."),
		broken:         counter("wasmatrix_report_stream_breaks_total", "How often a stream of reports to a voter broke or could not be opened."),
		reports:        counter("wasmatrix_report_messages_total", "Reports that this node sent to voters, heartbeats included."),
		reportBytes:    counter("wasmatrix_report_bytes_total", "Bytes of the reports that this node sent to voters."),
		fullReports:    counter("wasmatrix_report_full_total", "How often this node told a voter everything, since that knew too little to be told what has changed."),
		witness:        witness,
		unwitnessed:    counter("wasmatrix_witness_failures_total", "How often an order was carried out, but not acknowledged since too few voters heard of it in time."),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, read func() float64) {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("wasmatrix_node_agent_health", "1 while this node's agent works and its disk takes its journal, else 0.", func() float64 {
		if a.healthy.Load() && (a.journal == nil || a.journal.Trouble() == nil && a.journal.Writing() < diskPatience) {
			return 1
		}
		return 0
	})
	gauge("wasmatrix_instances_limit", "How many live instances this node takes on at the most.", func() float64 { return float64(a.limits().Instances) })
	gauge("wasmatrix_memory_committed_bytes", "Sum of the memory limits of this node's live instances.", func() float64 { return float64(a.facts.load().memory) })
	gauge("wasmatrix_memory_limit_bytes", "How much memory the instances of this node may have by their limits; 0 for no bound.", func() float64 { return float64(a.limits().Memory) })
	gauge("wasmatrix_cpu_committed_cores", "What this node's live instances were promised of the CPU.", func() float64 { return float64(a.facts.load().cpu) / 1000 })
	gauge("wasmatrix_cpu_limit_cores", "How much of the CPU the instances of this node may be promised; 0 for no bound.", func() float64 { return float64(a.limits().CPU) / 1000 })
	gauge("wasmatrix_module_store_modules", "Modules on this node's disk.", func() float64 { return float64(a.store.Usage().Modules) })
	gauge("wasmatrix_module_store_bytes", "Size of the modules on this node's disk.", func() float64 { return float64(a.store.Usage().Bytes) })
	all = append(all, newStatusCollector(a.facts), reportCollector{a.reports}, callCollector{&a.calls.counts},
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "wasmatrix_instance_crash_total", Help: "How often instances of this node ended by a trap or with another exit code than 0.",
		}, func() float64 { return float64(a.counts.crashes.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "wasmatrix_events_total", Help: "Events of this node.",
		}, func() float64 { recorded, _ := a.facts.eventCounts(); return float64(recorded) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "wasmatrix_event_gaps_total", Help: "How often a voter was so far behind that this node did not have all events any more that it had not heard of.",
		}, func() float64 { _, gaps := a.facts.eventCounts(); return float64(gaps) }))
	for _, c := range all {
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

// reportCollector tells how far the voters follow this node.
type reportCollector struct{ reports *reports }

var _ prometheus.Collector = reportCollector{}

var (
	reportStreamsDesc = prometheus.NewDesc("wasmatrix_report_streams", "Streams of reports to voters: open ones, and broken ones, which are tried again.", []string{"state"}, nil)
	reportLagDesc     = prometheus.NewDesc("wasmatrix_report_lag_changes", "Changes that the voter which is the furthest behind, of those that listen, has not acknowledged.", nil, nil)
	reportSilenceDesc = prometheus.NewDesc("wasmatrix_report_silence_seconds", "How long the voter has been silent that has been for the longest; one that is well acknowledges something every five seconds.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (reportCollector) Describe(out chan<- *prometheus.Desc) {
	out <- reportStreamsDesc
	out <- reportLagDesc
	out <- reportSilenceDesc
}

// Collect implements [prometheus.Collector].
func (c reportCollector) Collect(out chan<- prometheus.Metric) {
	var (
		open, broken int
		lag          uint64
		silence      time.Duration
	)
	streams := c.reports.all()
	seq := c.reports.agent.facts.position()
	for _, s := range streams {
		s.mu.Lock()
		isOpen, seen, heard := s.open, s.seen, s.heard
		s.mu.Unlock()
		silence = max(silence, time.Since(heard))
		if !isOpen {
			broken++
			continue
		}
		open++
		if seq > seen { // it may have more by now
			lag = max(lag, seq-seen)
		}
	}
	tell := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	tell(reportStreamsDesc, float64(open), "open")
	tell(reportStreamsDesc, float64(broken), "broken")
	tell(reportLagDesc, float64(lag))
	tell(reportSilenceDesc, silence.Seconds())
}

// callCollector tells what guests asked of each provider, from the counts that go with the reports.
type callCollector struct{ counts *vitals.Calls }

var _ prometheus.Collector = callCollector{}

var (
	callsDesc      = prometheus.NewDesc("wasmatrix_provider_call_seconds", "What calls of this node's guests to each provider took; of those that were allowed, and once there was one.", []string{"provider_id"}, nil)
	callErrorsDesc = prometheus.NewDesc("wasmatrix_provider_call_errors_total", "Calls of this node's guests that a provider did not serve, or not in time.", []string{"provider_id"}, nil)
)

// Describe implements [prometheus.Collector].
func (callCollector) Describe(out chan<- *prometheus.Desc) {
	out <- callsDesc
	out <- callErrorsDesc
}

// Collect implements [prometheus.Collector].
func (c callCollector) Collect(out chan<- prometheus.Metric) {
	c.counts.Each(func(id string, counted vitals.Counted) {
		buckets := make(map[float64]uint64, len(counted.AtMost))
		for most, n := range counted.AtMost {
			buckets[most.Seconds()] = n
		}
		out <- prometheus.MustNewConstHistogram(callsDesc, counted.Calls, counted.Took.Seconds(), buckets, id)
		out <- prometheus.MustNewConstMetric(callErrorsDesc, prometheus.CounterValue, float64(counted.Errors), id)
	})
}
