package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	fileName = "journal"

	// longestRetry caps the wait between attempts at a disk that fails. An attempt costs what the live
	// records take, and whoever freed space doesn't want to wait.
	longestRetry = 5 * time.Second
)

// ErrClosed says that an entry came after the end of Run.
var ErrClosed = errors.New("the journal is closed")

// Config says where a journal is. A zero field gets its default.
type Config struct {
	// Dir is where the file is, and the few that come and go beside it. Needed.
	Dir string
	// CompactAbove is the size in bytes below which the file is left to grow, however little of it is
	// live. Default 1 MiB: it costs nothing to read.
	CompactAbove int64
	// Retry is the wait after a disk error; it doubles with each further one, up to 5 s. Default 100 ms.
	Retry time.Duration
	// FlushTimeout bounds how long the end of Run waits for a disk that hangs. Default 5 s.
	FlushTimeout time.Duration
	// Log is where the journal says what an operator should know. Default: nowhere.
	Log *slog.Logger
	// Registerer takes the metrics. Default: nobody does.
	Registerer prometheus.Registerer

	disk disk
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("journal: no directory")
	case c.CompactAbove < 0 || c.Retry < 0 || c.FlushTimeout < 0:
		return fmt.Errorf("journal: compaction above %d bytes, retry after %s, flush for %s: none may be negative", c.CompactAbove, c.Retry, c.FlushTimeout)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.CompactAbove == 0 {
		c.CompactAbove = 1 << 20
	}
	if c.Retry == 0 {
		c.Retry = 100 * time.Millisecond
	}
	if c.FlushTimeout == 0 {
		c.FlushTimeout = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.disk == nil {
		c.disk = osDisk{}
	}
	return c
}

// Journal holds the newest record of each instance, and brings it to disk while Run runs. Its methods
// are safe for concurrent use, and none but Run waits for the disk.
//
// What waits for the disk is no queue but a map by key: a newer entry takes the place of an older one
// that was not written yet. So it never holds more than there are entries now and were at the last
// write, however long the disk hangs, and nobody has to wait for room.
type Journal struct {
	cfg      Config
	log      *slog.Logger
	path     string
	metrics  *metrics
	evidence bool          // the file was found damaged, and is to be kept aside
	wake     chan struct{} // has something in it when waiting was nil and no longer is

	mu        sync.Mutex // guards what follows; no I/O happens while it is held
	held      map[key]entry
	heldBytes int64          // of their frames
	changes   map[key][]byte // frames that the file lacks
	waiting   *group         // takes in entries; nil while there are none
	newest    *group
	durable   uint64 // groups up to this number are on disk
	fileBytes int64  // size of the file as it was written last
	trouble   error  // why the last write went wrong; nil if it did not
	closed    bool
}

// key is what there is one entry of.
type key struct {
	kind kind // kindInstance or kindMeta
	name string
}

// entry is what is held of a key.
type entry struct {
	generation uint64
	frame      []byte // never changed
	written    bool   // the file has a frame of this key, or one is on its way there
}

// group is the entries that go to disk together.
type group struct {
	number uint64
	tried  chan struct{} // closed once it is known how the first attempt to write it ended
}

// Ticket is the claim that an entry comes to disk. The zero one is of no entry, for which nobody waits.
type Ticket struct {
	journal *Journal
	group   *group
	err     error // why there is no such entry
}

func newJournal(cfg Config) *Journal {
	j := &Journal{
		cfg: cfg, log: cfg.Log, path: filepath.Join(cfg.Dir, fileName),
		metrics: newMetrics(),
		wake:    make(chan struct{}, 1),
		held:    map[key]entry{}, changes: map[key][]byte{},
		newest: &group{},
	}
	// What was read may have been in the page cache only, so it counts as durable once it was
	// written again.
	j.ticketLocked()
	return j
}

// Put notes the newest record of an instance. One of a lower generation than the one held is ignored,
// and the ticket is then that of the entries before it. The record is encoded before Put returns.
func (j *Journal) Put(rec *pb.Instance) Ticket {
	frame, err := instanceFrame(rec)
	if err != nil {
		return j.refuse(fmt.Errorf("journal: record of instance %q: %w", rec.GetInstanceId(), err))
	}
	return j.set(key{kindInstance, rec.GetInstanceId()}, entry{generation: rec.GetGeneration(), frame: frame})
}

// SetMeta notes a value that belongs to no instance.
func (j *Journal) SetMeta(name string, value []byte) Ticket {
	frame, err := metaFrame(name, value)
	if err != nil {
		return j.refuse(fmt.Errorf("journal: meta %q: %w", name, err))
	}
	return j.set(key{kindMeta, name}, entry{frame: frame})
}

// Trouble returns why the disk did not take what was written last; nil if it did, and where nothing was written yet.
func (j *Journal) Trouble() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trouble
}

// All returns the claim on everything that was put so far.
func (j *Journal) All() Ticket {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Ticket{journal: j, group: j.newest}
}

// Remove forgets an instance, unless a higher generation of it is held.
func (j *Journal) Remove(id string, generation uint64) Ticket {
	frame, err := removalFrame(id)
	if err != nil {
		return j.refuse(fmt.Errorf("journal: removal of instance %q: %w", id, err))
	}
	k := key{kindInstance, id}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return Ticket{err: ErrClosed}
	}
	old, ok := j.held[k]
	if !ok || old.generation > generation {
		return Ticket{journal: j, group: j.newest}
	}
	delete(j.held, k)
	j.heldBytes -= int64(len(old.frame))
	if old.written {
		j.changes[k] = frame
	} else {
		delete(j.changes, k) // or the removals of what comes and goes would pile up while a disk hangs
	}
	return j.ticketLocked()
}

func (j *Journal) set(k key, e entry) Ticket {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return Ticket{err: ErrClosed}
	}
	old, ok := j.held[k]
	if old.generation > e.generation {
		return Ticket{journal: j, group: j.newest}
	}
	_, removing := j.changes[k] // if it is not held
	e.written = old.written || !ok && removing
	j.held[k] = e
	j.heldBytes += int64(len(e.frame) - len(old.frame))
	j.changes[k] = e.frame
	return j.ticketLocked()
}

// refuse also says in the log what can't be kept, since not everybody waits.
func (j *Journal) refuse(err error) Ticket {
	j.log.Error("an entry can't be put into the journal", "err", err)
	return Ticket{err: err}
}

// ticketLocked returns the claim on the group that waits, and makes one if there is none.
func (j *Journal) ticketLocked() Ticket {
	if j.waiting == nil {
		j.waiting = &group{number: j.newest.number + 1, tried: make(chan struct{})}
		j.newest = j.waiting
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	return Ticket{journal: j, group: j.waiting}
}

// Wait returns once the entry, and everything before it, is on disk; or it says why that can't be. After an
// error of the disk the entry stays in memory and is tried again: another Wait tells how that went.
func (t Ticket) Wait(ctx context.Context) error {
	if t.group == nil {
		return t.err
	}
	if done, err := t.state(); done || err != nil {
		return err
	}
	select {
	case <-t.group.tried:
		_, err := t.state()
		return err
	case <-ctx.Done():
		return fmt.Errorf("journal: wait for the disk of %s: %w", t.journal.path, context.Cause(ctx))
	}
}

// state says whether the entry is on disk, and if it isn't, what is wrong with the disk.
func (t Ticket) state() (durable bool, err error) {
	j := t.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.durable >= t.group.number {
		return true, nil
	}
	return false, j.trouble
}
