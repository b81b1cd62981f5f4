package journal

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what a journal counts.
type metrics struct {
	sync                  prometheus.Histogram
	failures, compactions prometheus.Counter
	began                 atomic.Int64 // when the write under way began, in nanoseconds since 1970; 0 where there is none
}

func newMetrics() *metrics {
	return &metrics{
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wasmatrix_journal_sync_seconds",
			Help: "How long this node's disk took to sync its journal.",
			// From a disk with a write cache to one that nobody waits for any more.
			Buckets: prometheus.ExponentialBucketsRange(0.0001, 10, 14),
		}),
		failures:    prometheus.NewCounter(prometheus.CounterOpts{Name: "wasmatrix_journal_failures_total", Help: "How often this node's disk did not take what its journal was to hold."}),
		compactions: prometheus.NewCounter(prometheus.CounterOpts{Name: "wasmatrix_journal_compactions_total", Help: "How often the journal's file was replaced by one with only what is live."}),
	}
}

// Writing returns for how long the write under way has taken; 0 where there is none. On a disk that hangs there is no
// Trouble, as it has not failed.
func (j *Journal) Writing() time.Duration {
	began := j.metrics.began.Load()
	if began == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, began)))
}

func (j *Journal) registerMetrics() error {
	if j.cfg.Registerer == nil {
		return nil
	}
	gauge := func(name, help string, readLocked func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			j.mu.Lock()
			defer j.mu.Unlock()
			return readLocked()
		})
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		j.metrics.sync, j.metrics.failures, j.metrics.compactions,
		gauge("wasmatrix_journal_bytes", "Size of the journal's file as of the last write of this process.", func() float64 { return float64(j.fileBytes) }),
		gauge("wasmatrix_journal_records", "Records that the journal holds, of instances and of the node itself.", func() float64 { return float64(len(j.held)) }),
		gauge("wasmatrix_journal_waiting_records", "Records that wait for the disk.", func() float64 { return float64(len(j.changes)) }),
		gauge("wasmatrix_journal_trouble", "1 while this node's disk does not take its journal, else 0.", func() float64 {
			if j.trouble != nil {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wasmatrix_journal_writing_seconds", Help: "For how long the journal has waited for the disk with the write under way; 0 where there is none.",
		}, func() float64 { return j.Writing().Seconds() }),
	} {
		errs = append(errs, j.cfg.Registerer.Register(c))
	}
	return errors.Join(errs...)
}
