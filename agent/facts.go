package agent

import (
	"maps"
	"strconv"
	"sync"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// maxTombstones bounds how many removals are remembered. A reader that is further behind gets a
	// full report.
	maxTombstones = 10_000
	// maxEvents bounds the events kept; the oldest go first.
	maxEvents = 2048
)

// facts holds the records of one agent's life and the order in which they changed.
//
// Each change has a seq. A removal leaves a tombstone, so that what came after any seq can be told
// without telling everything. Records are never changed once they are here.
type facts struct {
	prefix string // of the ids of events: the node and this life of its agent

	mu     sync.Mutex // guards what follows; nothing is called while it is held
	rows   map[string]*row
	oldest *row // rows in the order of their last change
	newest *row
	seq    uint64
	floor  uint64 // changes up to here can't be told apart any more: a tombstone of them was dropped
	graves int    // tombstones among the rows
	counts map[pb.InstanceStatus]int
	memory uint64          // the sum of the limits of live instances
	cpu    uint64          // the sum of what live instances were promised, in millicores
	told   uint64          // events told so far
	events []recordedEvent // a ring once it is full
	eldest int             // index of the oldest event
	tally  tally
	wake   chan struct{} // closed at the next change; nil while nobody waits
}

// row is one instance, or what is left of it.
type row struct {
	id   string
	rec  *pb.Instance // nil for a tombstone
	seq  uint64
	gone uint64 // the generation that must not start here any more, plus one; 0 for none

	older, newer *row
}

// tally counts events.
type tally struct {
	recorded uint64
	gaps     uint64 // how often a reader was told less than it had not heard of
	goneUpTo uint64 // seq of the newest event that is not kept any more
}

type recordedEvent struct {
	seq   uint64 // of the change that it tells of
	event *pb.Event
}

// load is what the live instances take up.
type load struct {
	instances int
	memory    uint64
	cpu       uint64 // in millicores
}

func newFacts(prefix string) *facts {
	// The seq begins at 1, so that even an agent without a history is somewhere: 0 is nowhere.
	return &facts{prefix: prefix, seq: 1, rows: map[string]*row{}, counts: map[pb.InstanceStatus]int{}}
}

// put publishes a record, with the event that tells of the change, if there is one. A record of a
// lower generation than the one known is too late, and put then does nothing.
func (f *facts) put(rec *pb.Instance, event *pb.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rows[rec.GetInstanceId()]
	if r == nil {
		r = &row{id: rec.GetInstanceId()}
		f.rows[r.id] = r
	} else {
		if r.rec.GetGeneration() > rec.GetGeneration() {
			return false
		}
		f.unlinkLocked(r)
	}
	f.setLocked(r, rec)
	f.changedLocked(r, event)
	return true
}

// remove forgets a record of this generation. With final, orders to start that generation are to be
// refused from now on, for as long as the tombstone lasts.
func (f *facts) remove(id string, generation uint64, final bool, event *pb.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rows[id]
	if r == nil || r.rec == nil || r.rec.GetGeneration() != generation {
		return
	}
	f.unlinkLocked(r)
	f.setLocked(r, nil)
	if final {
		r.gone = max(r.gone, generation+1)
	}
	f.changedLocked(r, event)
	if f.graves > maxTombstones {
		f.dropTombstonesLocked(maxTombstones / 10)
	}
}

// record adds an event that goes with no change of an instance.
func (f *facts) record(event *pb.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	f.recordEventLocked(event)
	f.wakeLocked()
}

// get returns the record of an id, or nil.
func (f *facts) get(id string) *pb.Instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.rows[id]; r != nil {
		return r.rec
	}
	return nil
}

// seqOf returns the seq of an instance's newest change.
func (f *facts) seqOf(id string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.rows[id]; r != nil {
		return r.seq
	}
	return f.seq
}

// refuse has orders to start an instance be refused from now on up to this generation, for as long as the row lasts.
func (f *facts) refuse(id string, generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rows[id]
	if r == nil {
		r = &row{id: id}
		f.rows[id] = r
		f.setLocked(r, nil)
		f.changedLocked(r, nil)
	}
	r.gone = max(r.gone, generation+1)
	if f.graves > maxTombstones {
		f.dropTombstonesLocked(maxTombstones / 10)
	}
}

// refused returns up to which generation orders to start an instance are to be refused, and whether this one is.
func (f *facts) refused(id string, generation uint64) (upTo uint64, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rows[id]
	if r == nil || r.gone <= generation {
		return 0, false
	}
	return r.gone - 1, true
}

// load returns what the live instances take up.
func (f *facts) load() load {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loadLocked()
}

// countByStatus returns how many records have each status; statuses without any are left out.
func (f *facts) countByStatus() map[pb.InstanceStatus]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := maps.Clone(f.counts)
	maps.DeleteFunc(counts, func(_ pb.InstanceStatus, n int) bool { return n == 0 })
	return counts
}

// eventCounts returns how many events there were, and how often a reader missed some.
func (f *facts) eventCounts() (recorded, gaps uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tally.recorded, f.tally.gaps
}

func (l load) message() *pb.NodeLoad {
	return &pb.NodeLoad{Instances: uint32(l.instances), CommittedMemoryBytes: l.memory, CommittedCpuMillicores: uint32(l.cpu)}
}

// position returns the seq of the last change.
func (f *facts) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

// snapshot returns all records and the seq up to which they tell everything.
func (f *facts) snapshot() (seq uint64, records []*pb.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq, f.recordsLocked()
}

// news is what brings a reader from one seq to another.
type news struct {
	full    bool // start from nothing
	after   uint64
	seq     uint64
	changes []change // in order of seq
	events  []recordedEvent
}

// change is a record, or the removal of one.
type change struct {
	seq     uint64
	rec     *pb.Instance // nil for a removal
	removed string
}

// since returns what came after seq, or everything where that can't be told any more.
func (f *facts) since(seq uint64) news {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq > f.seq || seq < f.floor || seq == 0 {
		return f.fullLocked()
	}
	if f.tally.goneUpTo > seq {
		f.tally.gaps++
	}
	first := f.newest
	n := 0
	for ; first != nil && first.seq > seq; first = first.older {
		n++
	}
	changes := make([]change, n)
	for r := f.newest; n > 0; r = r.older {
		n--
		changes[n] = change{seq: r.seq, rec: r.rec}
		if r.rec == nil {
			changes[n].removed = r.id
		}
	}
	return news{after: seq, seq: f.seq, changes: changes, events: f.eventsLocked(seq)}
}

// changed returns a channel that is closed once there is something after seq; nil if there is now.
func (f *facts) changed(seq uint64) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seq > seq {
		return nil
	}
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	return f.wake
}

func (f *facts) fullLocked() news {
	n := news{full: true, seq: f.seq, events: f.eventsLocked(0)}
	for r := f.oldest; r != nil; r = r.newer {
		if r.rec != nil {
			n.changes = append(n.changes, change{seq: r.seq, rec: r.rec})
		}
	}
	return n
}

func (f *facts) recordsLocked() []*pb.Instance {
	records := make([]*pb.Instance, 0, len(f.rows)-f.graves)
	for r := f.oldest; r != nil; r = r.newer {
		if r.rec != nil {
			records = append(records, r.rec)
		}
	}
	return records
}

func (f *facts) loadLocked() load {
	l := load{memory: f.memory, cpu: f.cpu}
	for s, n := range f.counts {
		if fact.Live(s) {
			l.instances += n
		}
	}
	return l
}

// setLocked changes what a row holds and keeps the counts right. The row must be out of the list;
// a new one counts as a tombstone that was never counted.
func (f *facts) setLocked(r *row, rec *pb.Instance) {
	f.countLocked(r.rec, -1)
	f.countLocked(rec, 1)
	if r.rec == nil && r.seq > 0 {
		f.graves--
	}
	if rec == nil {
		f.graves++
	}
	r.rec = rec
}

func (f *facts) countLocked(rec *pb.Instance, by int) {
	if rec == nil {
		return
	}
	f.counts[rec.GetStatus()] += by
	if fact.Live(rec.GetStatus()) {
		f.memory += uint64(by) * rec.GetSpec().GetMemoryLimitBytes() // two's complement subtracts
		f.cpu += uint64(by) * uint64(rec.GetSpec().GetCpuMillicores())
	}
}

// changedLocked gives the row the next seq, appends it to the list and tells those who wait.
func (f *facts) changedLocked(r *row, event *pb.Event) {
	f.seq++
	r.seq = f.seq
	r.older, r.newer = f.newest, nil
	if f.newest != nil {
		f.newest.newer = r
	} else {
		f.oldest = r
	}
	f.newest = r
	if event != nil {
		f.recordEventLocked(event)
	}
	f.wakeLocked()
}

func (f *facts) wakeLocked() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

func (f *facts) unlinkLocked(r *row) {
	if r.older != nil {
		r.older.newer = r.newer
	} else {
		f.oldest = r.newer
	}
	if r.newer != nil {
		r.newer.older = r.older
	} else {
		f.newest = r.older
	}
	r.older, r.newer = nil, nil
}

// dropTombstonesLocked forgets the n oldest removals, several at once because finding them may mean
// passing every record.
func (f *facts) dropTombstonesLocked(n int) {
	for r := f.oldest; r != nil && n > 0; {
		newer := r.newer
		if r.rec == nil {
			f.unlinkLocked(r)
			delete(f.rows, r.id)
			f.graves--
			f.floor = r.seq
			n--
		}
		r = newer
	}
}

// recordEventLocked gives the event its id. Those of one life of an agent come in the order of the number in it, to everybody: who
// has passed on one has passed on all before it.
func (f *facts) recordEventLocked(event *pb.Event) {
	f.told++
	event.EventId = f.prefix + strconv.FormatUint(f.told, 10)
	e := recordedEvent{f.seq, event}
	f.tally.recorded++
	if len(f.events) < maxEvents {
		f.events = append(f.events, e)
		return
	}
	f.tally.goneUpTo = f.events[f.eldest].seq
	f.events[f.eldest] = e
	f.eldest = (f.eldest + 1) % maxEvents
}

// eventsLocked returns the events after seq, the oldest first.
func (f *facts) eventsLocked(seq uint64) []recordedEvent {
	n := len(f.events)
	from := n
	for from > 0 && f.events[(f.eldest+from-1)%n].seq > seq {
		from--
	}
	events := make([]recordedEvent, 0, n-from)
	for ; from < n; from++ {
		events = append(events, f.events[(f.eldest+from)%n])
	}
	return events
}
