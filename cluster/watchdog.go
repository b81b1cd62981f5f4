package cluster

import (
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
	wrote  func(took time.Duration) // hears of each write
	hung   func()                   // hears of each that took too long

	mu      sync.Mutex  // guards all below
	writing int         // writes under way
	late    *time.Timer // runs out when none has ended for the limit; nil while nothing is written
	round   uint64      // which timer late is
	cut     bool
}

func newWatchdog(store raft.LogStore, limit time.Duration, stream StreamLayer, log *slog.Logger) *watchdog {
	return &watchdog{LogStore: store, limit: limit, stream: stream, log: log, wrote: func(time.Duration) {}, hung: func() {}}
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
	w.writing++
	w.waitLocked()
	w.mu.Unlock()
	began := time.Now()
	err := write()
	w.wrote(time.Since(began))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing--
	w.late.Stop()
	w.late = nil
	w.waitLocked()
	if w.cut {
		w.cut = false
		w.stream.Restore()
		w.log.Info("the disk answers again; raft traffic goes on")
	}
	return err
}

// waitLocked gives the writes under way the limit from now, if none has it yet.
func (w *watchdog) waitLocked() {
	if w.writing > 0 && w.late == nil {
		w.round++
		round := w.round
		w.late = time.AfterFunc(w.limit, func() { w.cutOff(round) })
	}
}

// cutOff cuts Raft's traffic when a timer has run out, unless a write ended at that moment.
func (w *watchdog) cutOff(round uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut || w.late == nil || w.round != round {
		return
	}
	w.cut = true
	w.stream.Cut()
	w.hung()
	w.log.Error("a write of the raft log hangs: raft traffic is cut, so that another node can lead; check this node's disk", "duration", w.limit)
}
