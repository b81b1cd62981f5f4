package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	running = pb.InstanceStatus_INSTANCE_STATUS_RUNNING
	stopped = pb.InstanceStatus_INSTANCE_STATUS_STOPPED
	crashed = pb.InstanceStatus_INSTANCE_STATUS_CRASHED
)

func instance(id, node string, generation, revision uint64, status pb.InstanceStatus) *pb.Instance {
	return &pb.Instance{
		InstanceId: id, NodeId: node, NodeName: node, Generation: generation, Revision: revision, Status: status,
		Spec: &pb.InstanceSpec{Name: "web", MemoryLimitBytes: 1}, PlacedAt: &timestamppb.Timestamp{Seconds: 1},
	}
}

// history is an agent's story: its records after each change, change n being at seq n.
type history struct {
	node    string
	records []map[string]*pb.Instance
}

func drawHistory(t *rapid.T, node string) history {
	h := history{node: node, records: []map[string]*pb.Instance{{}}}
	for seq := range rapid.Uint64Range(1, 12).Draw(t, "changes") {
		now := map[string]*pb.Instance{}
		for id, i := range h.records[seq] {
			now[id] = i
		}
		id := fmt.Sprintf("%s-%d", node, rapid.IntRange(0, 3).Draw(t, "id"))
		if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
			delete(now, id)
		} else {
			now[id] = instance(id, node, 1, seq+1, rapid.SampledFrom([]pb.InstanceStatus{running, crashed}).Draw(t, "status"))
		}
		h.records = append(h.records, now)
	}
	return h
}

// delta is what an agent tells of the changes from one seq to another: a removal leaves a tombstone, so
// it is told also of a record that came after the first.
func (h history) delta(from, to uint64) (changed []*pb.Instance, removed []string) {
	for id, i := range h.records[to] {
		if h.records[from][id] != i {
			changed = append(changed, i)
		}
	}
	gone := map[string]bool{}
	for _, records := range h.records[from:to] {
		for id := range records {
			if _, still := h.records[to][id]; !still {
				gone[id] = true
			}
		}
	}
	return changed, slices.Collect(maps.Keys(gone))
}

// However reports are lost, repeated or late, a view that was not told of a gap is the agent's own.
func TestViewIsTheAgentsStoryWhateverReportsAreLostOrRepeated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, h := newView("me"), drawHistory(t, "n")
		last := uint64(len(h.records) - 1)
		v.replace("n", position{"boot", 0}, nil)
		for range rapid.IntRange(1, 20).Draw(t, "messages") {
			from := rapid.Uint64Range(0, last).Draw(t, "from")
			to := rapid.Uint64Range(from, last).Draw(t, "to")
			before := v.position("n").Seq
			switch {
			case rapid.IntRange(0, 4).Draw(t, "full") == 0:
				v.replace("n", position{"boot", to}, slices.Collect(maps.Values(h.records[to])))
			default:
				changed, removed := h.delta(from, to)
				ok := v.advance("n", from, position{"boot", to}, changed, removed)
				if ok != (from <= before) {
					t.Fatalf("a delta from %d at %d: accepted %v", from, before, ok)
				}
			}
			at := v.position("n").Seq
			if at < before {
				t.Fatalf("went back from %d to %d", before, at)
			}
			want := h.records[at]
			if got := v.onNode("n"); len(got) != len(want) {
				t.Fatalf("at %d: %d records, want %d", at, len(got), len(want))
			}
			for id, i := range want {
				if !proto.Equal(v.get(id), i) {
					t.Fatalf("at %d: %v, want %v", at, v.get(id), i)
				}
			}
		}
	})
}

func TestNewLifeOfAnAgentDropsTheRowsOfTheOldOne(t *testing.T) {
	v := newView("me")
	v.replace("n", position{"first", 7}, []*pb.Instance{instance("a", "n", 1, 1, running)})
	if v.advance("n", 7, position{"second", 8}, nil, nil) {
		t.Fatal("a new life went on where the old one ended")
	}
	v.replace("n", position{"second", 1}, nil)
	if v.get("a") != nil {
		t.Fatal("an instance of the agent's earlier life is still there")
	}
}

func TestInstanceThatRunsTwiceIsFoundInEitherOrder(t *testing.T) {
	older, newer := instance("a", "n1", 1, 1, running), instance("a", "n2", 2, 1, running)
	for name, order := range map[string][]*pb.Instance{"older first": {older, newer}, "newer first": {newer, older}} {
		t.Run(name, func(t *testing.T) {
			v := newView("me")
			v.put(order...)
			if v.get("a") != newer {
				t.Fatal("the lower generation stayed")
			}
			doubles, _ := v.doubled()
			if len(doubles) != 1 || doubles[0] != older {
				t.Fatalf("doubles %v, want the lower generation", doubles)
			}
			v.put(instance("a", "n1", 1, 2, crashed))
			if doubles, _ := v.doubled(); len(doubles) != 0 {
				t.Fatalf("still doubled after its node ended it: %v", doubles)
			}
		})
	}
}

// A leader that did not know of a move stopped the instance at its old place.
func TestStoppedInstanceIsStoppedWhereverElseItRuns(t *testing.T) {
	ended, moved := instance("a", "n1", 1, 2, stopped), instance("a", "n2", 2, 1, running)
	for name, order := range map[string][]*pb.Instance{"stop first": {ended, moved}, "move first": {moved, ended}} {
		t.Run(name, func(t *testing.T) {
			v := newView("me")
			v.put(order...)
			if doubles, _ := v.doubled(); v.get("a") != ended || len(doubles) != 1 || doubles[0] != moved {
				t.Fatalf("it is %v, and to be stopped are %v", v.get("a"), doubles)
			}
		})
	}
}

// A list that was made before an order was carried out arrives after its answer.
func TestLateListDoesNotTakeAnAnswerBack(t *testing.T) {
	v := newView("me")
	v.putAhead(position{"boot", 7}, instance("new", "n1", 1, 2, running))
	v.replace("n1", position{"boot", 5}, []*pb.Instance{instance("old", "n1", 1, 2, running)})
	if v.get("new") == nil || v.get("old") == nil {
		t.Fatal("an instance whose start was acknowledged is gone")
	}
	v.replace("n1", position{"boot", 8}, []*pb.Instance{instance("old", "n1", 1, 2, running)}) // it has been removed since
	if v.get("new") != nil || len(v.ahead) != 0 {
		t.Fatal("an answer outlives the story that has it")
	}
	v.putAhead(position{"boot", 9}, instance("new", "n1", 1, 2, running))
	if !v.advance("n1", 8, position{"boot", 9}, []*pb.Instance{instance("new", "n1", 1, 2, running)}, nil) || len(v.ahead) != 0 {
		t.Fatal("a report does not settle the answer")
	}
	v.putAhead(position{"boot", 12}, instance("newer", "n1", 1, 2, running))
	v.replace("n1", position{"another boot", 1}, nil)
	if v.get("newer") != nil {
		t.Fatal("an answer of an agent's earlier life is still there")
	}
}

// A reservation stands for a start that may fail: it must not end the instance that it would replace.
func TestReservationCountsButEndsNobody(t *testing.T) {
	v := newView("me")
	old := instance("a", "n1", 1, 1, running)
	v.put(old)
	moved := reservation("a", old.GetSpec(), candidate{NodeID: "n2"}, 2)
	v.reserve(moved)
	v.put(instance("a", "n1", 1, 2, running)) // the old node goes on reporting
	if doubles, _ := v.doubled(); len(doubles) != 0 {
		t.Fatalf("a reservation made a double of %v", doubles)
	}
	if v.usage("n2").Instances != 1 {
		t.Fatal("a reservation does not count at its node")
	}
	if i, err := v.resolve("a"); err != nil || i.GetNodeId() != "n1" || i.GetRevision() != 2 {
		t.Fatalf("while it is moved, %v, %v is shown of it", i, err)
	}
	v.release("a", "n2")
	if v.get("a").GetNodeId() != "n1" || v.get("a").GetRevision() != 2 || v.usage("n2").Instances != 0 {
		t.Fatal("the reservation was not taken back whole")
	}
	v.reserve(moved)
	v.put(instance("a", "n2", 2, 1, running)) // it has moved
	if doubles, _ := v.doubled(); len(doubles) != 1 || doubles[0].GetNodeId() != "n1" {
		t.Fatalf("after the move the old one is to be stopped, not %v", doubles)
	}
	v.settled(instance("a", "n1", 1, 2, running))

	v.reserve(reservation("b", old.GetSpec(), candidate{NodeID: "n2"}, 1))
	v.put(instance("b", "n2", 1, 1, running))
	v.release("b", "n2")
	if v.get("b") == nil || v.usage("n2").Instances != 2 {
		t.Fatal("a true record was counted twice or released with its reservation")
	}
}

func TestEventsAreKeptOnceAndBounded(t *testing.T) {
	l := NewEventLog()
	event := func(n int) *pb.Event { return &pb.Event{EventId: fmt.Sprint(n)} }
	l.Add([]*pb.Event{event(1), event(2), event(1)})
	l.Add([]*pb.Event{event(2), event(3)})
	if got, _, _ := l.after(0); len(got) != 3 {
		t.Fatalf("%d events kept, want each of 3 once", len(got))
	}
	_, position, changed := l.after(0)
	for n := range 3 * keepEvents {
		l.Add([]*pb.Event{event(n + 10)})
	}
	select {
	case <-changed:
	default:
		t.Fatal("a follower was not told of more")
	}
	got, end, _ := l.after(position)
	if len(got) > keepEvents+keepEvents/10 || len(got) < keepEvents || end != 3+3*keepEvents {
		t.Fatalf("%d kept up to %d", len(got), end)
	}
	if len(l.seen) != len(got) {
		t.Fatalf("%d ids remembered for %d events", len(l.seen), len(got))
	}
	if last := got[len(got)-1].GetEventId(); last != fmt.Sprint(3*keepEvents+9) {
		t.Fatalf("the last event is %s", last)
	}
}

// Whoever reads the log gets each event once and in order, or is told how many it missed; and the log never holds more than it may.
func TestReadersOfEventsMissNoneUntold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewEventLog()
		added, position, next := 0, 0, 0 // next: the number of the event that the reader is to get
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			for n := range rapid.IntRange(0, 3000).Draw(t, "added") {
				l.Add([]*pb.Event{{EventId: fmt.Sprint(added + n)}})
			}
			added = l.dropped + len(l.kept)
			if len(l.kept) > keepEvents+keepEvents/10 {
				t.Fatalf("%d events are kept", len(l.kept))
			}
			for range rapid.IntRange(0, 1500).Draw(t, "read") {
				r := l.Read(position)
				if position == 0 {
					next = l.dropped // what was before is not missed
				}
				next += r.Missed
				position = r.Position
				if r.Event == nil {
					if next != added {
						t.Fatalf("%d of %d events were read or missed", next, added)
					}
					break
				}
				if r.Event.GetEventId() != fmt.Sprint(next) {
					t.Fatalf("event %s, want %d", r.Event.GetEventId(), next)
				}
				next++
			}
		}
	})
}
