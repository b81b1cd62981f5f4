package controlplane

import (
	"slices"
	"sync"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// keepEvents is how many events a voter keeps; older ones go first.
const keepEvents = 10_000

// EventLog keeps the latest events of all agents, each once, in the order in which they came.
type EventLog struct {
	mu sync.Mutex // guards all below

	kept    []*pb.Event
	dropped int // how many have gone before kept[0]
	seen    map[string]struct{}
	changed chan struct{} // closed and replaced with each addition
}

// NewEventLog returns an empty log.
func NewEventLog() *EventLog {
	return &EventLog{seen: map[string]struct{}{}, changed: make(chan struct{})}
}

// Add appends the events that it has not seen before.
func (l *EventLog) Add(events []*pb.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.kept)
	for _, e := range events {
		if _, twice := l.seen[e.GetEventId()]; twice {
			continue
		}
		l.seen[e.GetEventId()] = struct{}{}
		l.kept = append(l.kept, e)
	}
	if len(l.kept) == before {
		return
	}
	// Cut in blocks, so that the copy is paid once in a while and not with each event.
	if extra := len(l.kept) - keepEvents; extra > keepEvents/10 {
		for _, e := range l.kept[:extra] {
			delete(l.seen, e.GetEventId())
		}
		l.kept = slices.Clone(l.kept[extra:])
		l.dropped += extra
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// after returns the events from a position on, the position after them, and a channel that is
// closed when there are more. Position 0 is the oldest event kept.
func (l *EventLog) after(position int) ([]*pb.Event, int, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := max(position-l.dropped, 0)
	return slices.Clone(l.kept[min(from, len(l.kept)):]), l.dropped + len(l.kept), l.changed
}

// Reading is what is at a position of the log.
type Reading struct {
	Event    *pb.Event       // nil where none has come yet
	Position int             // the next one
	Missed   int             // how many events from the asked position on have gone already
	More     <-chan struct{} // closed when there are events that have come since
}

// Read returns the event at a position, or if it has gone, the oldest after it. Position 0 is the oldest kept.
func (l *EventLog) Read(position int) Reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Reading{Position: max(position, l.dropped), More: l.changed}
	if position > 0 {
		r.Missed = r.Position - position
	}
	if n := r.Position - l.dropped; n < len(l.kept) {
		r.Event = l.kept[n]
		r.Position++
	}
	return r
}

// Events returns what this node remembers of what happened, which is little where it is no voter.
func (s *Server) Events() *EventLog { return s.events }

// asked says whether an event is of the instance and of the node that a request is about.
func asked(req *pb.WatchEventsRequest, e *pb.Event) bool {
	return (req.GetInstanceId() == "" || req.GetInstanceId() == e.GetInstanceId()) && (req.GetNodeId() == "" || req.GetNodeId() == e.GetNodeId())
}

// WatchEvents streams the events gathered so far, by time, and if asked those to come.
func (s *Server) WatchEvents(req *pb.WatchEventsRequest, stream pb.ControlPlaneService_WatchEventsServer) error {
	l, err := s.leading()
	if err != nil {
		return err
	}
	since := time.Time{}
	if req.GetSince() != nil {
		since = req.GetSince().AsTime()
	}
	position := 0
	for first := true; ; first = false {
		events, next, changed := s.events.after(position)
		position = next
		events = slices.DeleteFunc(events, func(e *pb.Event) bool { return !asked(req, e) || !e.GetTime().AsTime().After(since) })
		if first { // several agents' stories, each in order, come interleaved by arrival
			slices.SortStableFunc(events, func(a, b *pb.Event) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
			since = time.Time{} // what comes late is new to the caller, whatever its time
		}
		for chunk := range slices.Chunk(events, 500) {
			if err := stream.Send(&pb.WatchEventsResponse{Events: chunk}); err != nil {
				return err
			}
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-l.ctx.Done():
			return s.notLeading()
		}
	}
}
