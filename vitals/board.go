package vitals

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// Period is how often agents report how they fare, and how much time a bin is of.
	Period = 5 * time.Second
	// Window is for how long bins are kept.
	Window = 15 * time.Minute
	// recent is over how much time the rates of providers are taken.
	recent = time.Minute
	// settled is how old a bin must be to be shown: by then each node that is well has reported all of it.
	settled = Period
	// apart is how many bins keep providers apart: all that a minute can touch.
	apart = int((recent+settled)/Period) + 2
	// fresh is for how long a node's newest report says how it fares.
	fresh = 3 * Period
	// shortest is the least time between two reports that says something of rates. A stream that begins anew reports at once.
	shortest = time.Second
)

// Board is what a voter knows of how all nodes fare.
type Board struct {
	nodes map[string]*node
	bins  [Window / Period]bin // a ring; the newest is the one before next
	next  int
	open  bin // since the last tick
}

// node is what is known of one node.
type node struct {
	bootID  string
	heard   time.Time
	last    *pb.NodeLoad
	counted *pb.NodeLoad // up to here it is in the bins
	cpu     float64      // cores in use
	guests  float64      // cores in use by guests
}

// NewBoard returns one that has heard of nobody.
func NewBoard(now time.Time) *Board { return &Board{nodes: map[string]*node{}, open: bin{from: now}} }

// Hear takes a node's report. One without figures, as of an older version, is passed over.
func (b *Board) Hear(nodeID, bootID string, load *pb.NodeLoad, now time.Time) {
	if load.GetUpFor() == nil {
		return
	}
	n := b.nodes[nodeID]
	if n == nil || n.bootID != bootID {
		n = &node{bootID: bootID}
		b.nodes[nodeID] = n
	}
	n.last, n.heard = load, now
	between := load.GetUpFor().AsDuration() - n.counted.GetUpFor().AsDuration()
	if between < shortest {
		return
	}
	n.cpu = max(0, load.GetCpuTime().AsDuration()-n.counted.GetCpuTime().AsDuration()).Seconds() / between.Seconds()
	g := grown(n.counted, load)
	n.guests = g.guestCPU / between.Seconds()
	b.spread(g, now.Add(-between), now)
	n.counted = load
}

// spread adds what was counted between two moments to the bins of then, each as much as it is of that time. What is older than
// all bins is dropped.
func (b *Board) spread(g growth, from, to time.Time) {
	b.open.to = to
	b.open.add(g, from, to, true)
	for n := 1; n <= len(b.bins); n++ {
		older := b.back(n)
		if !older.to.After(from) {
			return
		}
		older.add(g, from, to, n < apart)
	}
}

// back returns the nth newest bin.
func (b *Board) back(n int) *bin { return &b.bins[(b.next-n+len(b.bins))%len(b.bins)] }

// Tick ends a bin; instances are those of that moment by status. It forgets nodes that nobody has heard for long.
func (b *Board) Tick(now time.Time, instances map[string]uint32) {
	b.open.to, b.open.instances = now, instances
	b.bins[b.next] = b.open
	b.next = (b.next + 1) % len(b.bins)
	b.open = bin{from: now}
	b.back(apart).byProvider = nil
	for id, n := range b.nodes {
		if now.Sub(n.heard) > Window {
			delete(b.nodes, id)
		}
	}
}

// Restart forgets everything, as where a node is no voter and hears nothing.
func (b *Board) Restart(now time.Time) {
	if len(b.nodes) == 0 && b.back(1).to.IsZero() {
		b.open.from = now
		return
	}
	*b = *NewBoard(now)
}

// Node returns how a node fares; nil where that is not known.
func (b *Board) Node(nodeID string, now time.Time) *pb.NodeVitals {
	n := b.nodes[nodeID]
	if n == nil || now.Sub(n.heard) > fresh {
		return nil
	}
	return &pb.NodeVitals{
		CpuUsedCores: n.cpu, CpuCores: n.last.GetCpuCores(), ResidentBytes: n.last.GetResidentBytes(),
		UpFor: n.last.GetUpFor(), Starts: n.last.GetStarts(), Crashes: n.last.GetCrashes(),
		GuestCpuUsedCores: n.guests, GuestMemoryBytes: n.last.GetGuestMemoryBytes(), GuestCpuTime: n.last.GetGuestCpuTime(),
	}
}

// Provider returns what guests asked of a provider in the last minute.
func (b *Board) Provider(id string, now time.Time) *pb.CallRates {
	var (
		sum  calling
		span time.Duration
	)
	for n := 1; n <= len(b.bins) && span < recent; n++ {
		older := b.back(n)
		if older.to.IsZero() {
			break
		}
		if now.Sub(older.to) < settled {
			continue
		}
		span += older.span()
		if some := older.byProvider[id]; some != nil {
			sum.add(some, 1)
		}
	}
	return sum.rates(span)
}

// History returns the bins of which all nodes have told, the oldest first.
func (b *Board) History(now time.Time) *pb.GetHistoryResponse {
	h := &pb.GetHistoryResponse{Period: durationpb.New(Period), Window: durationpb.New(Window), Since: timestamppb.New(b.open.from)}
	for n := len(b.bins); n > 0; n-- {
		older := b.back(n)
		if older.to.IsZero() {
			continue
		}
		if len(h.Samples) == 0 {
			h.Since = timestamppb.New(older.from)
		}
		if now.Sub(older.to) < settled {
			break
		}
		h.Samples = append(h.Samples, older.message())
	}
	return h
}
