package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what this node counts of its part in the cluster. The rest is read when somebody asks, and never from the disk: a
// disk that hangs must not hide what /metrics says of it.
//
// Raft and memberlist report to one sink for the whole process, which nodes of one process would share, so they are not asked to.
type metrics struct {
	elections, leaders, hangs       prometheus.Counter
	failedProbes, refutes, mutedUDP prometheus.Counter
	apply, logWrite                 prometheus.Histogram

	logBytes   atomic.Int64
	snapshotAt atomic.Int64 // when the newest snapshot was taken, in milliseconds since 1970; 0 where there is none
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	// From a disk with a write cache to the five seconds after which a leader gives up.
	writes := prometheus.ExponentialBucketsRange(0.0005, 8, 15)
	return &metrics{
		elections:    counter("wasmatrix_raft_elections_total", "How often this node stood for election."),
		leaders:      counter("wasmatrix_raft_leader_changes_total", "How often this node's Raft took notice of a leader, be it a new one or one that was silent; only voters do."),
		hangs:        counter("wasmatrix_raft_log_hangs_total", "How often a write of the Raft log took so long that this node's Raft traffic was cut."),
		failedProbes: counter("wasmatrix_gossip_failed_probes_total", "How often another node answered this one in no way and was suspected to be dead."),
		refutes:      counter("wasmatrix_gossip_refutes_total", "How often this node had to tell the others that it is not dead."),
		mutedUDP:     counter("wasmatrix_gossip_udp_failures_total", "How often another node was reached by TCP but not by UDP; a firewall may be in between."),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wasmatrix_raft_apply_seconds", Buckets: writes,
			Help: "What writes of metadata took on this node while it led, from the order to its effect.",
		}),
		logWrite: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wasmatrix_raft_log_write_seconds", Buckets: writes,
			Help: "What writes of the Raft log took on this node's disk, the sync included.",
		}),
	}
}

// heard counts what gossip says only in its log.
func (m *metrics) heard(line string) {
	switch {
	case strings.Contains(line, "Suspect ") && strings.Contains(line, "no acks received"):
		m.failedProbes.Inc()
	case strings.Contains(line, "Refuting a suspect message"), strings.Contains(line, "Refuting a dead message"):
		m.refutes.Inc()
	case strings.Contains(line, "over TCP but UDP probes failed"):
		m.mutedUDP.Inc()
	}
}

// observed counts what Raft tells of.
func (m *metrics) observed(o *raft.Observation) {
	switch what := o.Data.(type) {
	case raft.RaftState:
		if what == raft.Candidate {
			m.elections.Inc()
		}
	case raft.LeaderObservation:
		if what.LeaderID != "" {
			m.leaders.Inc()
		}
	}
}

// wrote notes a write of the log, and how large its file is now.
func (m *metrics) wrote(path string, took time.Duration) {
	m.logWrite.Observe(took.Seconds())
	if info, err := os.Stat(path); err == nil {
		m.logBytes.Store(info.Size())
	}
}

// datedSnapshots notes when snapshots are taken.
type datedSnapshots struct {
	*raft.FileSnapshotStore

	metrics *metrics
}

// look notes how old the newest snapshot is that was there before; its id ends with its time.
func (s datedSnapshots) look() error {
	all, err := s.List()
	if err != nil || len(all) == 0 {
		return err
	}
	ms, err := strconv.ParseInt(all[0].ID[strings.LastIndexByte(all[0].ID, '-')+1:], 10, 64)
	if err != nil {
		return fmt.Errorf("snapshot %q has no time in its id: %w", all[0].ID, err)
	}
	s.metrics.snapshotAt.Store(ms)
	return nil
}

// Create begins a snapshot.
func (s datedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(v, index, term, c, cIndex, t)
	if err != nil {
		return nil, err
	}
	return datedSink{sink, s.metrics}, nil
}

type datedSink struct {
	raft.SnapshotSink

	metrics *metrics
}

// Close ends the snapshot, which is good from then on.
func (s datedSink) Close() error {
	err := s.SnapshotSink.Close()
	if err == nil {
		s.metrics.snapshotAt.Store(time.Now().UnixMilli())
	}
	return err
}

func (c *Cluster) registerMetrics() error {
	if c.cfg.Registerer == nil {
		return nil
	}
	m := c.metrics
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
	}
	for _, one := range []prometheus.Collector{
		m.elections, m.leaders, m.hangs, m.failedProbes, m.refutes, m.mutedUDP, m.apply, m.logWrite,
		gauge("wasmatrix_raft_is_leader", "1 while this node leads the cluster, else 0.", func() float64 { return oneIf(c.Leadership().Self) }),
		gauge("wasmatrix_raft_is_voter", "1 while this node is a Raft voter by its own configuration, else 0.", func() float64 { return oneIf(contains(c.configuredVoters(), c.cfg.NodeID)) }),
		gauge("wasmatrix_raft_term", "The Raft term that this node is in.", func() float64 { return float64(c.raft().CurrentTerm()) }),
		gauge("wasmatrix_raft_commit_index", "Newest entry of the Raft log that this node knows to be committed.", func() float64 { return float64(c.raft().CommitIndex()) }),
		gauge("wasmatrix_raft_applied_index", "Newest entry of the Raft log that this node has applied.", func() float64 { return float64(c.raft().AppliedIndex()) }),
		gauge("wasmatrix_raft_last_index", "Newest entry of the Raft log that this node has.", func() float64 { return float64(c.raft().LastIndex()) }),
		gauge("wasmatrix_raft_log_bytes", "Size of the file with this node's Raft log, as of the last write of this process.", func() float64 { return float64(m.logBytes.Load()) }),
		gauge("wasmatrix_raft_snapshot_timestamp_seconds", "When this node took or got its newest snapshot of the metadata, in seconds since 1970; 0 where there is none.", func() float64 { return float64(m.snapshotAt.Load()) / 1000 }),
		gauge("wasmatrix_gossip_health_score", "0 while gossip on this node keeps its times; the more it is, the more does the node lack CPU or network.", func() float64 { return float64(c.gossip.GetHealthScore()) }),
		newStates(c),
	} {
		if err := c.cfg.Registerer.Register(one); err != nil {
			return fmt.Errorf("register the metrics of the cluster: %w", err)
		}
	}
	return nil
}

// states tells of what is in one of several states.
type states struct {
	cluster                         *Cluster
	raft, contact, snapshot, voters *prometheus.Desc
	members                         *prometheus.Desc
}

var _ prometheus.Collector = (*states)(nil)

func newStates(c *Cluster) *states {
	return &states{
		cluster:  c,
		raft:     prometheus.NewDesc("wasmatrix_raft_state", "1 for the state that this node's Raft is in, else 0. A node that is no voter is a follower.", []string{"state"}, nil),
		contact:  prometheus.NewDesc("wasmatrix_raft_last_contact_seconds", "How long ago a leader's Raft was heard; 0 on the leader, and absent where this node is no voter or has heard none.", nil, nil),
		snapshot: prometheus.NewDesc("wasmatrix_raft_snapshot_index", "Newest entry of the Raft log that is in a snapshot; what is newer is in the log alone.", nil, nil),
		voters:   prometheus.NewDesc("wasmatrix_raft_voters", "Voters of the configuration by what gossip knows of them; absent where this node is no voter.", []string{"state"}, nil),
		members:  prometheus.NewDesc("wasmatrix_gossip_members", "Nodes that this node knows by gossip, itself included, by their state.", []string{"state"}, nil),
	}
}

// Describe implements [prometheus.Collector].
func (s *states) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.raft, s.contact, s.snapshot, s.voters, s.members} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *states) Collect(to chan<- prometheus.Metric) {
	c, r := s.cluster, s.cluster.raft()
	tell := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := r.State()
	for _, state := range []raft.RaftState{raft.Follower, raft.Candidate, raft.Leader, raft.Shutdown} {
		tell(s.raft, oneIf(state == now), strings.ToLower(state.String()))
	}
	if index, err := strconv.ParseUint(r.Stats()["last_snapshot_index"], 10, 64); err == nil {
		tell(s.snapshot, float64(index))
	}
	members, votes := map[string]int{}, map[string]int{}
	configured := c.configuredVoters()
	isVoter := contains(configured, c.cfg.NodeID)
	for _, m := range c.Members() {
		members[m.State]++
		if contains(configured, m.NodeID) {
			votes[m.State]++
		}
	}
	votes[stateDead] = len(configured) - votes[stateAlive] - votes[stateLeft] // gossip may have forgotten some
	for _, state := range []string{stateAlive, stateDead, stateLeft} {
		tell(s.members, float64(members[state]), state)
		if isVoter {
			tell(s.voters, float64(votes[state]), state)
		}
	}
	switch last := r.LastContact(); {
	case now == raft.Leader:
		tell(s.contact, 0)
	case isVoter && !last.IsZero():
		tell(s.contact, max(0, time.Since(last).Seconds()))
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
