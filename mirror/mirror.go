package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/raftfsm"
)

const (
	// lookEvery is how often the leader keeps its lease and looks whether the copy is as it wrote it. What changes is
	// written at once.
	lookEvery = 3 * time.Second
	// settle is how long changes are gathered, so that those that come together make one round.
	settle = 100 * time.Millisecond
	// How soon it is tried again after a failure, at first and in the end.
	againAfter  = 500 * time.Millisecond
	againAtMost = 5 * time.Second
)

// Cluster is whom the mirror asks who leads and who can be heard.
type Cluster interface {
	ClusterID() string
	Leadership() cluster.Leadership
	Members() []cluster.Member
	Changed() <-chan struct{}
	Barrier(ctx context.Context) error
}

var _ Cluster = (*cluster.Cluster)(nil)

// Mirror keeps the copy while this node leads.
type Mirror struct {
	cfg      Config
	cluster  Cluster
	metadata *raftfsm.FSM

	session *session // nil while there is none; of Run alone, as is term
	term    uint64   // in which this node's metadata is known to hold what earlier leaders wrote
	state   atomic.Int32
	failed  prometheus.Counter // rounds
}

// What a mirror can be.
const (
	idle int32 = iota // another node leads, and writes
	up
	down
)

// New returns a mirror. It reads password and certificates once, so that what is wrong with them shows at the start.
func New(cfg Config, c Cluster, metadata *raftfsm.FSM) (*Mirror, error) {
	if err := cfg.Etcd.Check(); err != nil {
		return nil, err
	}
	m := &Mirror{cfg: cfg, cluster: c, metadata: metadata, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wasmatrix_etcd_mirror_failures_total",
		Help: "How often this node, while it led, could not bring its copy in etcd up to date; it tries again.",
	})}
	if cfg.Registerer == nil {
		return m, nil
	}
	err := cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wasmatrix_etcd_mirror_up",
		Help: "1 while this node leads and its copy in etcd is complete, else 0.",
	}, func() float64 {
		if m.state.Load() == up {
			return 1
		}
		return 0
	}))
	if err = errors.Join(err, cfg.Registerer.Register(m.failed)); err != nil {
		return nil, fmt.Errorf("register the metric of the mirror: %w", err)
	}
	return m, nil
}

// Run keeps the copy until ctx ends. Nothing that etcd does or fails to do ends it earlier.
func (m *Mirror) Run(ctx context.Context) error {
	defer m.leave()
	again := backoff.NewExponentialBackOff()
	again.InitialInterval, again.MaxInterval = againAfter, againAtMost
	for {
		// Asked for before the round: what changes in it is for the next one.
		leadership, metadata := m.cluster.Changed(), m.metadata.Changed()
		next := lookEvery
		if err := m.round(ctx); err != nil {
			m.failed.Inc()
			leadership, metadata, next = nil, nil, again.NextBackOff() // changes don't make etcd better
		} else {
			again.Reset()
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
			continue
		case <-leadership:
		case <-metadata:
		case <-ctx.Done():
		}
		timer.Reset(settle)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// round copies once, where that is this node's part, and says when the state has changed. It returns the error of an
// etcd that does not do its part.
func (m *Mirror) round(ctx context.Context) error {
	now, err := up, m.copy(ctx)
	switch {
	case errors.Is(err, errNotOurs), errors.Is(err, errOvertaken):
		now, err = idle, nil
		m.leave()
	case err != nil:
		now = down
		m.leave() // a new connection may find a better member
	}
	if ctx.Err() == nil && m.state.Swap(now) != now { // what the end breaks off is no failure
		m.tell(now, err)
	}
	return err
}

func (m *Mirror) tell(now int32, err error) {
	log := m.cfg.Log.With("endpoints", strings.Join(m.cfg.Etcd.Endpoints, ","))
	switch now {
	case up:
		log.Info("etcd has a copy of who is here and which providers there are")
	case down:
		log.Warn("etcd does not take the copy of who is here; trying again", "err", err)
	default:
		log.Info("the copy in etcd is not this node's to write any more")
	}
}

// errNotOurs says that the copy is not this node's to write.
var errNotOurs = errors.New("another node leads")

func (m *Mirror) copy(ctx context.Context) error {
	l, id := m.cluster.Leadership(), m.cluster.ClusterID()
	if !l.Self || id == "" {
		return errNotOurs
	}
	if m.term != l.Term {
		m.leave()
		// Until then the metadata may be older than what the leader before has written.
		caughtUp, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if m.cluster.Barrier(caughtUp) != nil {
			return errNotOurs
		}
		m.term = l.Term
	}
	nodes := m.metadata.Nodes()
	if len(nodes) == 0 {
		return errNotOurs // a quorum was founded anew, and its nodes register within seconds: without any there is no fence
	}
	want, err := content(keysOf(id), nodes, m.cluster.Members(), m.metadata.Providers())
	if err != nil {
		return err
	}
	if m.session == nil {
		if m.session, err = m.cfg.open(ctx, id, l.Term); err != nil {
			return err
		}
	}
	return m.session.copy(ctx, want)
}

// leave ends what is going with etcd. The lease is left to run out, or the keys to their next writer.
func (m *Mirror) leave() {
	if m.session != nil {
		m.session.close()
		m.session = nil
	}
}
