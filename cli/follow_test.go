package cli

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// A guest writes; streams break and are opened again anywhere; the ring forgets old lines; the instance
// moves. Each line is shown at most once and in order, and what is not shown is owned up to.
func TestLinesAreShownOnceThroughReconnects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			l               lines
			life            = place{node: "a", generation: 1}
			written, oldest uint64 // in this life
			shown           uint64
		)
		oldest = 1
		for range rapid.IntRange(1, 10).Draw(t, "streams") {
			if rapid.IntRange(0, 4).Draw(t, "moves") == 0 {
				life = place{node: fmt.Sprint(life.generation), generation: life.generation + 1}
				written, oldest, shown = 0, 1, 0
			}
			written += rapid.Uint64Max(20).Draw(t, "written")
			oldest = max(oldest, rapid.Uint64Range(1, written+1).Draw(t, "oldest kept"))
			l.open(life)
			end := rapid.Uint64Range(oldest-1, written).Draw(t, "stream broke after")
			first := shown == 0
			for seq := oldest; seq <= end; seq++ {
				fresh, lost := l.next(seq)
				if fresh != (seq > shown) {
					t.Fatalf("after line %d, line %d is new: %v", shown, seq, fresh)
				}
				if lost > 0 && (first || seq != shown+lost+1) {
					t.Fatalf("after line %d, line %d comes with %d missing", shown, seq, lost)
				}
				if fresh && !first && lost != seq-shown-1 {
					t.Fatalf("between lines %d and %d, %d are said to be missing", shown, seq, lost)
				}
				shown = max(shown, seq)
				first = false
			}
			if fresh, lost := l.next(0); !fresh || lost > 0 {
				t.Fatalf("the agent's remark is new: %v, with %d missing", fresh, lost)
			}
		}
	})
}

func TestLinesOfAnotherLifeAreNew(t *testing.T) {
	var l lines
	l.open(place{"a", 1})
	for seq := uint64(1); seq <= 5; seq++ {
		l.next(seq)
	}
	l.open(place{"b", 2})
	if fresh, missed := l.next(1); !fresh || missed > 0 {
		t.Errorf("line 1 from the new node is new: %v, with %d missing", fresh, missed)
	}
}

func TestOverwrittenLinesAreReportedOnce(t *testing.T) {
	var l lines
	l.open(place{"a", 1})
	l.next(3) // a tail begins anywhere
	l.open(place{"a", 1})
	if fresh, missed := l.next(10); !fresh || missed != 6 {
		t.Errorf("line 10 after line 3 is new: %v, with %d missing", fresh, missed)
	}
	if _, missed := l.next(20); missed > 0 { // the agent has said so
		t.Errorf("within a stream %d are reported missing again", missed)
	}
}

func TestEventsAreShownOnceThroughReconnects(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	event := func(id string, at time.Time) *pb.Event { return &pb.Event{EventId: id, Time: timestamppb.New(at)} }
	shown := shownEvents{ids: newMemory(rememberEvents)}
	if since := shown.since(); since != nil {
		t.Errorf("the first stream begins at %s", since.AsTime())
	}
	for _, e := range []*pb.Event{event("a", now.Add(-time.Hour)), event("b", now), event("c", now.Add(-time.Minute))} {
		if !shown.add(e, now) {
			t.Errorf("%s was shown before it came", e.GetEventId())
		}
	}
	if since := shown.since().AsTime(); !since.Equal(now.Add(-eventsOverlap)) {
		t.Errorf("the next stream begins at %s", since)
	}
	if shown.add(event("c", now.Add(-time.Minute)), now) {
		t.Error("c is shown twice")
	}
}

func TestEventFromAFastClockHidesNoLaterOnes(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	shown := shownEvents{ids: newMemory(rememberEvents)}
	shown.add(&pb.Event{EventId: "tomorrow", Time: timestamppb.New(now.Add(24 * time.Hour))}, now)
	if since := shown.since().AsTime(); since.After(now.Add(-eventsOverlap)) {
		t.Errorf("the next stream begins at %s, and events until then are lost", since)
	}
}
