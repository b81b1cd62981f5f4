package journal

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// maxGrowth is how many times the size of what is live the file may have before it is compacted: each
// byte is then written again less than once on the average.
const maxGrowth = 4

// Run brings entries to disk until ctx ends, and then those that are left. Afterwards no more are taken.
//
// A disk that hangs at the end is given up after Config.FlushTimeout; the goroutine that is stuck in the
// system call can't be waited for.
func (j *Journal) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- j.write(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	hung := time.NewTimer(j.cfg.FlushTimeout)
	defer hung.Stop()
	select {
	case err := <-done:
		return err
	case <-hung.C:
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		return fmt.Errorf("journal: the disk of %s has not answered for %s; the last entries may be lost", j.path, j.cfg.FlushTimeout)
	}
}

// write is the only goroutine that touches the disk.
func (j *Journal) write(ctx context.Context) error {
	w := &writer{journal: j, disk: j.cfg.disk}
	defer w.drop()
	var pause time.Duration
	for {
		last := ctx.Err() != nil
		err := w.commit(last)
		if last {
			return err
		}
		if err == nil {
			pause = 0
			runtime.Gosched() // lets those answer who have waited, before the disk is waited for again
			select {
			case <-ctx.Done():
			case <-j.wake:
			}
			continue
		}
		pause = min(max(2*pause, j.cfg.Retry), longestRetry)
		retry := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
		retry.Stop()
	}
}

// writer knows how far the file is.
type writer struct {
	journal *Journal
	disk    disk
	file    file  // nil where none is trusted, and the next batch has to go to a fresh one
	size    int64 // of the file
	patient int64 // the size below which another compaction is not tried; one has failed
}

// commit writes and syncs what there is.
func (w *writer) commit(last bool) error {
	b, ok := w.take(last)
	if !ok {
		return nil
	}
	w.journal.metrics.began.Store(time.Now().UnixNano())
	err := w.put(b)
	w.journal.metrics.began.Store(0)
	w.journal.settle(b, w.size, err)
	return err
}

// batch is what goes to disk with one sync.
type batch struct {
	number  uint64 // of the last group that it completes
	group   *group // whose first attempt this is; nil when an earlier attempt is repeated
	changes [][]byte
	fresh   bool     // the file is to be replaced by
	all     [][]byte // these
}

// take returns what there is to write; false if there is nothing. With last, the journal is closed in
// the same step, so that no entry comes in behind.
func (w *writer) take(last bool) (batch, bool) {
	j := w.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = j.closed || last
	if j.waiting == nil && j.durable == j.newest.number {
		return batch{}, false
	}
	b := batch{number: j.newest.number, group: j.waiting, changes: make([][]byte, 0, len(j.changes))}
	j.waiting = nil
	var added int64
	for k, frame := range j.changes {
		b.changes = append(b.changes, frame)
		added += int64(len(frame))
		if e, ok := j.held[k]; ok && !e.written {
			e.written = true
			j.held[k] = e
		}
	}
	clear(j.changes)
	if b.fresh = w.outgrown(added, j.heldBytes); b.fresh {
		b.all = make([][]byte, 0, len(j.held))
		for _, e := range j.held {
			b.all = append(b.all, e.frame)
		}
	}
	return b, true
}

// outgrown says whether the file is to be replaced, were so many bytes added to it.
func (w *writer) outgrown(added, held int64) bool {
	size := w.size + added
	return w.file == nil || size > max(w.journal.cfg.CompactAbove, w.patient, maxGrowth*held)
}

// settle tells everybody how writing a batch ended.
func (j *Journal) settle(b batch, size int64, err error) {
	if err != nil {
		j.metrics.failures.Inc()
	}
	j.mu.Lock()
	before := j.trouble
	if j.trouble = err; err == nil {
		j.durable, j.fileBytes = b.number, size
	}
	if b.group != nil {
		close(b.group.tried)
	}
	j.mu.Unlock()
	switch {
	case err != nil && before == nil:
		j.log.Error("records can't be brought to disk; they are kept in memory, and it is tried again", "err", err)
	case err == nil && before != nil:
		j.log.Info("the disk answers again; all records are on it", "path", j.path)
	}
}

func (w *writer) put(b batch) error {
	if b.fresh {
		err := w.replace(b.all)
		if err == nil || w.file == nil {
			return err
		}
		w.journal.log.Warn("the journal can't be compacted; it grows on for now", "err", err)
		w.patient = 2 * w.size
	}
	return w.append(b.changes)
}

// append adds frames to the file. After an error the file is given up: a kernel that could not write a
// page may forget that it is dirty, and the next sync would succeed without it (fsyncgate, 2018).
func (w *writer) append(frames [][]byte) error {
	data := slices.Concat(frames...)
	if len(data) == 0 {
		return nil
	}
	_, err := w.file.Write(data)
	if err == nil {
		err = w.sync(w.file)
	}
	if err != nil {
		w.drop()
		return diskError("write", w.journal.path, err)
	}
	w.size += int64(len(data))
	return nil
}

// replace puts a fresh file with these frames in the place of the old one. Until the rename that one is
// whole, and may be appended to; afterwards it isn't there any more.
func (w *writer) replace(frames [][]byte) error {
	j := w.journal
	data := slices.Concat(append([][]byte{header()}, frames...)...)
	path := j.path + ".new"
	fresh, err := w.create(path, data)
	if err != nil {
		return diskError("write", path, err)
	}
	if j.evidence {
		w.keepAside()
		j.evidence = false
	}
	w.drop()
	if err = w.disk.Rename(path, j.path); err == nil {
		err = w.disk.SyncDir(j.cfg.Dir)
	}
	if err != nil {
		ignore(fresh.Close())
		return diskError("replace", j.path, err)
	}
	w.file, w.size, w.patient = fresh, int64(len(data)), 0
	j.metrics.compactions.Inc()
	return nil
}

// create makes a file with these bytes, or gives back the space that it took.
func (w *writer) create(path string, data []byte) (file, error) {
	f, err := w.disk.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(data); err == nil {
		err = w.sync(f)
	}
	if err != nil {
		ignore(f.Close())
		ignore(w.disk.Remove(path))
		return nil, err
	}
	return f, nil
}

func (w *writer) sync(f file) error {
	began := time.Now()
	err := f.Sync()
	w.journal.metrics.sync.Observe(time.Since(began).Seconds())
	return err
}

// drop gives the file up.
func (w *writer) drop() {
	if w.file != nil {
		ignore(w.file.Close())
		w.file = nil
	}
}
