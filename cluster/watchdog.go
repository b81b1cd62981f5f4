package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// watchdog is the log with an eye on how long its writes take. A leader whose disk hangs is never
// replaced by itself, since its heartbeats come from other goroutines (hashicorp/raft#503): while a
// write takes too long, all Raft traffic of this node is cut, and the others elect a new leader.
type watchdog struct {
	raft.LogStore

	limit  time.Duration
	stream StreamLayer
	log    *slog.Logger

	mu      sync.Mutex // guards all below
	writing int        // writes under way
	since   time.Time  // when the oldest of them began
	cut     bool
}

func newWatchdog(store raft.LogStore, limit time.Duration, stream StreamLayer, log *slog.Logger) *watchdog {
	return &watchdog{LogStore: store, limit: limit, stream: stream, log: log}
}

// StoreLog stores one entry.
func (w *watchdog) StoreLog(l *raft.Log) error {
	return w.watch(func() error { return w.LogStore.StoreLog(l) })
}

// StoreLogs stores several entries.
func (w *watchdog) StoreLogs(l []*raft.Log) error {
	return w.watch(func() error { return w.LogStore.StoreLogs(l) })
}

// DeleteRange removes entries.
func (w *watchdog) DeleteRange(from, to uint64) error {
	return w.watch(func() error { return w.LogStore.DeleteRange(from, to) })
}

func (w *watchdog) watch(write func() error) error {
	w.mu.Lock()
	if w.writing == 0 {
		w.since = time.Now()
	}
	w.writing++
	w.mu.Unlock()
	err := write()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing--
	w.since = time.Now()
	if w.cut {
		w.cut = false
		w.stream.Restore()
		w.log.Info("the disk answers again; raft traffic goes on")
	}
	return err
}

// run looks at the writes until ctx ends.
func (w *watchdog) run(ctx context.Context) error {
	look := time.NewTicker(w.limit / 10)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			w.look()
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut || w.writing == 0 || time.Since(w.since) < w.limit {
		return
	}
	w.cut = true
	w.stream.Cut()
	w.log.Error("a write of the raft log hangs: raft traffic is cut, so that another node can lead; check this node's disk", "duration", time.Since(w.since))
}
