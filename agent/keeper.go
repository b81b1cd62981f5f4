package agent

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/modulestore"
)

const (
	// longestSilence is how long no leader may have said what is referenced for its successors' words to
	// count as one with its own: six of a leader's rounds, and some elections.
	longestSilence = time.Minute
	// silenceShare keeps that in proportion where modules go sooner than after an hour.
	silenceShare = 4
)

// keeper knows which modules of this node are used, and which were referenced lately. The others may
// be deleted, and it deletes them.
//
// Unknown is not unreferenced: what leaders said counts only as far back as they have said it without
// a gap, and nothing is remembered over a restart. So whoever was away keeps everything for a while. The
// times are those of a clock that nobody sets.
type keeper struct {
	store *modulestore.Store
	keep  time.Duration // how long a module stays that nothing references
	told  func()        // hears of each module that was deleted

	// mu guards what follows. It is held while a file is deleted, so that nobody comes to use it
	// in between.
	mu     sync.Mutex
	uses   map[modulestore.Hash]int       // by live instances and transfers
	wanted map[modulestore.Hash]time.Time // when it was last referenced
	heard  time.Time                      // when a leader last said all that is referenced
	since  time.Time                      // from when on leaders have said so without a gap
}

func newKeeper(store *modulestore.Store, keep time.Duration) *keeper {
	return &keeper{store: store, keep: keep, told: func() {}, uses: map[modulestore.Hash]int{}, wanted: map[modulestore.Hash]time.Time{}}
}

// use keeps a module from being deleted until release is called, and for a while after.
func (k *keeper) use(h modulestore.Hash) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.uses[h]++
	return func() { k.unuse(h) }
}

func (k *keeper) unuse(h modulestore.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted[h] = time.Now()
	if k.uses[h]--; k.uses[h] == 0 {
		delete(k.uses, h)
	}
}

// has says whether a module is held, and how large it is. Whoever asks is about to use it, so it stays.
func (k *keeper) has(h modulestore.Hash) (size int64, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if size, ok = k.store.Has(h); ok {
		k.wanted[h] = time.Now()
	}
	return size, ok
}

// hear takes a leader's word: these are referenced, and if complete, nothing else is.
func (k *keeper) hear(referenced []modulestore.Hash, complete bool, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range referenced {
		k.wanted[h] = now
	}
	if !complete {
		return
	}
	if k.silentLocked(now) {
		k.since = now
	}
	k.heard = now
}

// silentLocked says whether it is too long ago that a leader said what is referenced.
func (k *keeper) silentLocked(now time.Time) bool {
	return k.heard.IsZero() || now.Sub(k.heard) > min(longestSilence, k.keep/silenceShare)
}

// idle returns those of the modules that nothing has referenced for as long as they are kept.
func (k *keeper) idle(held []modulestore.Info, now time.Time) []modulestore.Hash {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetLocked(held, now)
	var idle []modulestore.Hash
	for _, m := range held {
		if k.idleLocked(m.Hash, now) {
			idle = append(idle, m.Hash)
		}
	}
	return idle
}

func (k *keeper) idleLocked(h modulestore.Hash, now time.Time) bool {
	return k.uses[h] == 0 && !k.silentLocked(now) && now.Sub(k.since) >= k.keep && now.Sub(k.wanted[h]) >= k.keep
}

// forgetLocked drops what was remembered of modules that are not here any more.
func (k *keeper) forgetLocked(held []modulestore.Info, now time.Time) {
	here := make(map[modulestore.Hash]struct{}, len(held))
	for _, m := range held {
		here[m.Hash] = struct{}{}
	}
	maps.DeleteFunc(k.wanted, func(h modulestore.Hash, at time.Time) bool {
		_, ok := here[h]
		return !ok && now.Sub(at) >= k.keep
	})
}

// deleteIdle deletes a module, unless it has been referenced since it was found idle.
func (k *keeper) deleteIdle(h modulestore.Hash, now time.Time) (deleted bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.idleLocked(h, now) {
		return false, nil
	}
	return true, k.deleteLocked(h)
}

// deleteUnused deletes a module, unless it is used now.
func (k *keeper) deleteUnused(h modulestore.Hash) (deleted bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses[h] > 0 {
		return false, nil
	}
	return true, k.deleteLocked(h)
}

func (k *keeper) deleteLocked(h modulestore.Hash) error {
	if err := k.store.Remove(h); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	delete(k.wanted, h)
	k.told()
	return nil
}
