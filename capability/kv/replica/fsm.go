package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

// fsm applies what the group has agreed on to a working store. What it decides, it decides by the log alone, the clock
// included, so that all replicas decide alike.
type fsm struct {
	dir string
	log *slog.Logger

	// What follows is Raft's own goroutine's alone.
	calls  *calls
	logged int64 // bytes of the log since the last snapshot

	clock atomic.Int64  // the newest time of a command, in Unix nanoseconds
	grown chan struct{} // has a token when a snapshot is due
	broke chan struct{} // closed when the store can't be written any more

	mu    sync.RWMutex // guards what store points to, for readers
	store *working
}

var _ raft.BatchingFSM = (*fsm)(nil)

// newFSM returns an FSM with an empty store.
func newFSM(dir string, log *slog.Logger) (*fsm, error) {
	store, err := openWorking(dir)
	if err != nil {
		return nil, fmt.Errorf("open a working store: %w", err)
	}
	return &fsm{
		dir: dir, log: log, calls: newCalls(maxCalls), store: store,
		grown: make(chan struct{}, 1), broke: make(chan struct{}),
	}, nil
}

func (f *fsm) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.store.remove()
}

// Apply carries out one entry.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch carries out entries in one transaction, and returns an answer for each.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	if f.isBroken() {
		for n := range answers {
			answers[n] = answer{Code: storeBroke}
		}
		return answers
	}
	size := f.store.size
	err := f.store.Update(func(tx *bbolt.Tx) error {
		p := pageOf(tx)
		for n, l := range logs {
			answers[n] = answer{}
			if l.Type != raft.LogCommand {
				continue
			}
			a, grown, err := f.apply(p, l)
			if err != nil {
				return err
			}
			size += grown
			answers[n] = a
			f.logged += int64(len(l.Data)) + entryOverhead
		}
		return nil
	})
	if err != nil {
		f.log.Error("the store of replicated keys can't be written; it will be built anew", "err", err)
		close(f.broke) // calls and clock are ahead of the store now, and go with it
		for n := range answers {
			answers[n] = answer{Code: storeBroke}
		}
		return answers
	}
	f.store.size = size
	if f.logged >= max(snapshotBytes, size/2) {
		select {
		case f.grown <- struct{}{}:
		default: // it is known already
		}
	}
	return answers
}

// entryOverhead is what an entry of the log takes beside its command.
const entryOverhead = 256

func (f *fsm) isBroken() bool {
	select {
	case <-f.broke:
		return true
	default:
		return false
	}
}

// disorder is by how much concurrent commands may be out of the order of their times. Within it time does not run
// backwards; beyond it a clock was set, and is believed.
const disorder = time.Second

// reading returns the time that counts at a moment, by the newest time before.
func reading(newest, now int64) int64 {
	if now < newest && now >= newest-int64(disorder) {
		return newest
	}
	return now
}

// now returns the time by which a reader judges what has expired.
func (f *fsm) now() int64 { return reading(f.clock.Load(), time.Now().UnixNano()) }

// apply carries out one command. An error is one of the store, and never of the command.
func (f *fsm) apply(p page, l *raft.Log) (a answer, grown int64, err error) {
	c, err := decode(l.Data)
	if err != nil {
		return answer{Code: refused}, 0, nil //nolint:nilerr // the answer says it, alike on all replicas
	}
	if before, ok := f.calls.find(c.CallID); ok {
		if before.Print != c.print() {
			return answer{Code: otherCall}, 0, nil
		}
		return before.Answer, 0, nil
	}
	now := reading(f.clock.Load(), c.Now)
	f.clock.Store(now)
	if c.Op == opSweep {
		return f.sweep(p, now, int(c.Limit))
	}
	at := path(c.Provider, c.Bucket, c.Key)
	old, there := p.read(at, now)
	if !there {
		old = record{}
		if grown, err = p.drop(at); err != nil { // it may be there and have expired
			return a, 0, err
		}
	}
	var more int64
	switch {
	case c.IfRevision != nil && *c.IfRevision != old.Revision:
		a = answer{Code: conflict, Number: old.Revision}
	case c.Op == opSet:
		a.Number = l.Index
		more, err = p.put(at, record{Revision: l.Index, Expires: expiresAfter(now, int64(c.TTL)), Value: c.Value})
	case c.Op == opDelete:
		if there {
			a.Number = 1
		}
		more, err = p.drop(at)
	case c.Op == opIncrement:
		text := old.Value
		if !there {
			text = []byte("0")
		}
		sum, wrong := decimal.Add(text, c.By)
		switch {
		case errors.Is(wrong, decimal.ErrOverflow):
			a.Code = overflow
		case wrong != nil:
			a.Code = notNumber
		default:
			a.Number = uint64(sum)
			more, err = p.put(at, record{Revision: l.Index, Expires: old.Expires, Value: fmt.Append(nil, sum)})
		}
	}
	if err != nil {
		return a, 0, err
	}
	f.calls.add(call{ID: c.CallID, Print: c.print(), Answer: a})
	return a, grown + more, nil
}

func (f *fsm) sweep(p page, now int64, most int) (a answer, grown int64, err error) {
	for _, at := range p.expired(now, most) {
		freed, err := p.drop(at)
		if err != nil {
			return a, 0, err
		}
		grown += freed
		a.Number++
	}
	return a, grown, nil
}

// view has fn read the store.
func (f *fsm) view(fn func(p page) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.View(func(tx *bbolt.Tx) error { return fn(pageOf(tx)) })
}

// due returns whether there are expired keys to sweep away.
func (f *fsm) due() bool {
	var due bool
	err := f.view(func(p page) error {
		due = len(p.expired(f.now(), 1)) > 0
		return nil
	})
	return err == nil && due
}
