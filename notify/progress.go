package notify

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// maxSources bounds how many lives of agents are known; those that were silent for longest are forgotten first. All of them in
	// one announcement stay well below a message's size.
	maxSources = 5000
	// How far back a new leader goes with what it does not know to be delivered: in general, and where it has not been
	// told yet how far the receivers are, as it has just started.
	backInformed   = time.Hour
	backUninformed = time.Minute
)

// progress is how far one receiver has been told what happened: for each source, which is one life of one agent, the number of its
// last event that was delivered. Those of a source come in the order of their numbers.
type progress struct {
	mu sync.Mutex // guards all below

	passed   map[string]place
	since    time.Time // what is older, and of an unknown source, is not for this leader to tell
	informed bool      // what others announced is known

	// What was passed goes from recent to ripe to told, one step a tick. So what is announced was handed over at least one tick
	// ago: a message has reached all servers by then, even if its sender died right after.
	recent, ripe, told map[string]uint64
	untold             bool // told has grown since it was announced as a whole
}

type place struct {
	count uint64
	at    time.Time // when it was passed
	old   bool      // nothing of the source was told: it was all too old
}

func newProgress() *progress {
	return &progress{passed: map[string]place{}, recent: map[string]uint64{}, ripe: map[string]uint64{}, told: map[string]uint64{}}
}

// announcement is what the leader says of a receiver.
type announcement struct {
	Delivered map[string]uint64 `json:"delivered"`
	Whole     bool              `json:"whole,omitempty"` // nothing is left out
}

// lead begins to be this node's progress.
func (p *progress) lead(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	back := backUninformed
	if p.informed {
		back = backInformed
	}
	p.since = now.Add(-back)
	p.informed = true // from now on it knows all
}

// due says whether an event is still to be told.
func (p *progress) due(e *pb.Event) bool {
	source, count := split(e.GetEventId())
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.passed[source]
	if known && count <= before.count {
		return false
	}
	return known && !before.old || e.GetTime().AsTime().After(p.since)
}

// pass notes that an event needs no more telling: it was told, or is too old.
func (p *progress) pass(e *pb.Event, told bool, now time.Time) {
	source, count := split(e.GetEventId())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passLocked(source, count, told, now) {
		p.recent[source] = count
	}
}

func (p *progress) passLocked(source string, count uint64, told bool, now time.Time) bool {
	before, known := p.passed[source]
	if known && before.count >= count {
		return false
	}
	p.passed[source] = place{count, now, !told && (!known || before.old)}
	if len(p.passed) > maxSources {
		oldest := source
		for s, one := range p.passed {
			if one.at.Before(p.passed[oldest].at) {
				oldest = s
			}
		}
		delete(p.passed, oldest)
		delete(p.told, oldest)
	}
	return true
}

// tick returns what is to be announced now, if anything.
func (p *progress) tick(whole bool) (announcement, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.ripe
	p.ripe, p.recent = p.recent, map[string]uint64{}
	for source, count := range news {
		if _, known := p.passed[source]; known {
			p.told[source] = max(p.told[source], count)
			p.untold = true
		}
	}
	if whole && p.untold {
		p.untold = false
		return announcement{Delivered: maps.Clone(p.told), Whole: true}, true
	}
	return announcement{Delivered: news}, len(news) > 0
}

// learn takes over what a leader announces.
func (p *progress) learn(a announcement, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.informed = p.informed || a.Whole
	for source, count := range a.Delivered {
		if p.passLocked(source, count, true, now) {
			p.told[source] = count
			p.untold = true
		}
	}
}

// split cuts an event's id into its source and its number.
func split(id string) (source string, count uint64) {
	source = strings.TrimRight(id, "0123456789")
	count, err := strconv.ParseUint(id[len(source):], 10, 64)
	if err != nil { // no number: a source of one event
		return id, 0
	}
	return source, count
}
