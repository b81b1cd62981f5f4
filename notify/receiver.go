package notify

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/controlplane"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// sayEvery is how often it is logged that a receiver fails, or that events are dropped.
const sayEvery = time.Minute

// errRefused says that a receiver will not take this event, however often it is asked.
var errRefused = errors.New("refused")

// delivery is an event on its way.
type delivery struct {
	kind string // the event's type
	body []byte // a CloudEvent
}

// receiver is one of those who are told, in order, one event at a time.
type receiver struct {
	name     string // to be shown: no secret is in it
	key      string // the same on all nodes that are told of this receiver, and nothing can be read from it
	pace     pace
	log      *slog.Logger
	progress *progress
	deliver  func(context.Context, delivery) error // one attempt

	delivered, dropped, failed prometheus.Counter
	telling                    atomic.Pointer[time.Time] // when the event happened that is being told; nil for none

	// What was logged, so that a receiver in trouble does not fill the log.
	failing                  bool
	saidFailing, saidDropped time.Time
	unsaid                   int // events dropped since that was logged
}

func newReceiver(cfg Config, name, key string, c *counts) *receiver {
	return &receiver{
		name: name, key: key, pace: cfg.pace, log: cfg.Log.With("receiver", name), progress: newProgress(),
		delivered: c.delivered.WithLabelValues(name), dropped: c.dropped.WithLabelValues(name), failed: c.failed.WithLabelValues(name),
	}
}

// run tells what happened since where the receiver is, and what happens, until ctx ends.
func (r *receiver) run(ctx context.Context, clusterID string, events *controlplane.EventLog) {
	defer r.telling.Store(nil)
	for position := 0; ; {
		next := events.Read(position)
		if next.Missed > 0 {
			r.drop(next.Missed, errors.New("it is so slow that they were forgotten meanwhile"))
		}
		position = next.Position
		if next.Event == nil {
			r.telling.Store(nil)
			select {
			case <-next.More:
				continue
			case <-ctx.Done():
				return
			}
		}
		due := r.progress.due(next.Event)
		if due && !r.tell(ctx, clusterID, next.Event) {
			return
		}
		r.progress.pass(next.Event, due, time.Now())
	}
}

// tell delivers one event, or gives it up. It says false where ctx ended before.
func (r *receiver) tell(ctx context.Context, clusterID string, e *pb.Event) bool {
	at := e.GetTime().AsTime()
	r.telling.Store(&at)
	body, err := encode(clusterID, e)
	if err != nil {
		r.drop(1, err)
		return true
	}
	again := backoff.NewExponentialBackOff()
	again.InitialInterval, again.MaxInterval = r.pace.again, r.pace.againAtMost
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := r.deliver(ctx, delivery{e.GetType(), body})
		if err != nil && ctx.Err() == nil {
			r.failed.Inc()
		}
		if errors.Is(err, errRefused) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(again), backoff.WithMaxElapsedTime(r.pace.giveUp), backoff.WithNotify(r.sayFailing))
	switch {
	case err == nil:
		r.delivered.Inc()
		r.sayWell(at)
	case ctx.Err() != nil:
		return false
	default:
		r.drop(1, err)
	}
	return true
}

func (r *receiver) sayFailing(err error, after time.Duration) {
	if time.Since(r.saidFailing) >= sayEvery {
		r.failing, r.saidFailing = true, time.Now()
		r.log.Warn("a receiver of events fails; trying again", "retry_in", after.Round(time.Millisecond), "err", err)
	}
}

func (r *receiver) sayWell(happened time.Time) {
	if r.failing {
		r.failing = false
		r.log.Info("the receiver takes events again", "duration", time.Since(happened).Round(time.Millisecond), "dropped", r.unsaid)
		r.unsaid = 0
	}
}

// drop notes that the receiver will never hear of some events.
func (r *receiver) drop(n int, why error) {
	r.dropped.Add(float64(n))
	if r.unsaid += n; time.Since(r.saidDropped) >= sayEvery {
		r.log.Warn("a receiver will never hear of some events", "dropped", r.unsaid, "err", why)
		r.unsaid, r.saidDropped = 0, time.Now()
	}
}

// counts are the metrics of all receivers.
type counts struct{ delivered, dropped, failed *prometheus.CounterVec }

func newCounts() *counts {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"to"})
	}
	return &counts{
		delivered: vec("wasmatrix_events_delivered_total", "Events that a receiver took from this node."),
		dropped:   vec("wasmatrix_events_dropped_total", "Events that a receiver will never hear of: it refused them, failed for too long, or was too slow."),
		failed:    vec("wasmatrix_event_delivery_failures_total", "Attempts to deliver an event that failed; most are tried again."),
	}
}

// delays tells how late receivers are.
type delays struct {
	desc      *prometheus.Desc
	receivers []*receiver
}

var _ prometheus.Collector = delays{}

// Describe implements [prometheus.Collector].
func (d delays) Describe(ch chan<- *prometheus.Desc) { ch <- d.desc }

// Collect implements [prometheus.Collector].
func (d delays) Collect(ch chan<- prometheus.Metric) {
	for _, r := range d.receivers {
		late := 0.0
		if at := r.telling.Load(); at != nil {
			late = max(0, time.Since(*at).Seconds()) // clocks differ
		}
		ch <- prometheus.MustNewConstMetric(d.desc, prometheus.GaugeValue, late, r.name)
	}
}
