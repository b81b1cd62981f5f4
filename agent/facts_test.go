package agent

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// replica is what a voter has of one agent, by the rules of the reports.
type replica struct {
	bootID  string
	seq     uint64
	rows    map[string]*pb.Instance
	events  map[string]bool
	coming  map[string]*pb.Instance // a full report that is not complete yet
	filling bool
}

func newReplica() *replica {
	return &replica{rows: map[string]*pb.Instance{}, events: map[string]bool{}}
}

// apply takes a message, and says whether it is to be acknowledged; an error is a gap.
func (r *replica) apply(m *pb.ReportStatusRequest) (ack bool, err error) {
	if m.GetFull() {
		r.coming, r.filling = map[string]*pb.Instance{}, true
	}
	for _, e := range m.GetEvents() {
		r.events[e.GetEventId()] = true
	}
	if r.filling {
		if m.GetAfterSeq() != 0 {
			return false, fmt.Errorf("a piece of a full report goes on after %d", m.GetAfterSeq())
		}
		for _, i := range m.GetInstances() {
			r.coming[i.GetInstanceId()] = i
		}
		if m.GetSeq() == 0 {
			return false, nil
		}
		r.rows, r.filling = r.coming, false
	} else {
		if m.GetBootId() != r.bootID || m.GetAfterSeq() != r.seq {
			return false, fmt.Errorf("changes from %s after %d, but this is at %s %d", m.GetBootId(), m.GetAfterSeq(), r.bootID, r.seq)
		}
		for _, i := range m.GetInstances() {
			r.rows[i.GetInstanceId()] = i
		}
		for _, id := range m.GetRemovedInstanceIds() {
			delete(r.rows, id)
		}
	}
	r.bootID, r.seq = m.GetBootId(), m.GetSeq()
	return true, nil
}

func (r *replica) ack() *pb.ReportStatusResponse {
	return &pb.ReportStatusResponse{BootId: r.bootID, Seq: r.seq}
}

// differs says how the replica differs from the facts; empty if it doesn't.
func (r *replica) differs(f *facts) string {
	seq, records := f.snapshot()
	if r.seq != seq || len(r.rows) != len(records) {
		return fmt.Sprintf("the voter has %d rows at %d, the agent %d at %d", len(r.rows), r.seq, len(records), seq)
	}
	for _, rec := range records {
		if got := r.rows[rec.GetInstanceId()]; !proto.Equal(got, rec) {
			return fmt.Sprintf("the voter has %v, the agent %v", got, rec)
		}
	}
	return ""
}

// change does something to the facts, whatever t draws.
func change1(t *rapid.T, f *facts, count *int) {
	*count++
	id := fmt.Sprintf("i%d", rapid.IntRange(0, 30).Draw(t, "id"))
	event := &pb.Event{}
	old := f.get(id)
	switch rapid.SampledFrom([]string{"put", "put", "put", "remove", "event"}).Draw(t, "change") {
	case "put":
		f.put(&pb.Instance{
			InstanceId: id,
			Spec:       &pb.InstanceSpec{MemoryLimitBytes: 10, CpuMillicores: 7},
			Generation: old.GetGeneration() + rapid.Uint64Range(0, 1).Draw(t, "generation"),
			Revision:   uint64(*count),
			Status:     pb.InstanceStatus(rapid.IntRange(1, 5).Draw(t, "status")),
		}, event)
	case "remove":
		f.remove(id, old.GetGeneration(), rapid.Bool().Draw(t, "final"), nil)
	case "event":
		f.record(event)
	}
}

// TestDeltaFromAnywhereReachesNow is the law of the facts: what was known at any moment, and what
// since tells of that moment, make what is known now.
func TestDeltaFromAnywhereReachesNow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFacts("")
		count := 0
		voters := []*replica{newReplica()}
		for range rapid.IntRange(0, 80).Draw(t, "changes") {
			change1(t, f, &count)
			if rapid.IntRange(0, 9).Draw(t, "watch") == 0 {
				voters = append(voters, newReplica())
			}
			v := rapid.SampledFrom(voters).Draw(t, "voter")
			v.bootID = "b"
			for _, m := range f.since(v.seq).messages(rapid.IntRange(1, 5).Draw(t, "most")) {
				m.BootId = "b"
				if _, err := v.apply(m); err != nil {
					t.Fatal(err)
				}
			}
			if d := v.differs(f); d != "" {
				t.Fatal(d)
			}
		}
		seq, records := f.snapshot()
		want := load{}
		for _, rec := range records {
			if fact.Live(rec.GetStatus()) {
				want.instances++
				want.memory += rec.GetSpec().GetMemoryLimitBytes()
				want.cpu += uint64(rec.GetSpec().GetCpuMillicores())
			}
		}
		if l := f.load(); l != want {
			t.Fatalf("the load is %+v, but live instances have %+v", l, want)
		}
		if n := f.since(seq); n.full || len(n.changes) > 0 || len(n.events) > 0 {
			t.Fatalf("since now there is %+v", n)
		}
	})
}

func TestRecordOfALowerGenerationIsTooLate(t *testing.T) {
	f := newFacts("")
	f.put(&pb.Instance{InstanceId: "i", Generation: 2}, nil)
	if f.put(&pb.Instance{InstanceId: "i", Generation: 1}, nil) || f.get("i").GetGeneration() != 2 {
		t.Fatal("generation 1 replaced generation 2")
	}
	f.remove("i", 1, false, nil)
	if f.get("i") == nil {
		t.Fatal("the removal of generation 1 removed generation 2")
	}
}

func TestMovedInstanceIsRememberedByItsTombstone(t *testing.T) {
	f := newFacts("")
	refuses := func(generation uint64) bool { _, yes := f.refused("i", generation); return yes }
	f.put(&pb.Instance{InstanceId: "i", Generation: 2}, nil)
	f.remove("i", 2, true, nil)
	if upTo, yes := f.refused("i", 1); !yes || upTo != 2 || !refuses(2) || refuses(3) {
		t.Fatal("want generations up to 2 to be gone, and 3 to be welcome")
	}
	f.put(&pb.Instance{InstanceId: "i", Generation: 3}, nil)
	f.remove("i", 3, false, nil)
	if refuses(3) {
		t.Fatal("a start that failed was taken for a move")
	}
}

func TestTombstonesAreBoundedAndThoseFarBehindStartOver(t *testing.T) {
	f := newFacts("")
	f.put(&pb.Instance{InstanceId: "first"}, nil)
	early := f.position()
	for n := range 2 * maxTombstones {
		id := fmt.Sprint(n)
		f.put(&pb.Instance{InstanceId: id}, nil)
		f.remove(id, 0, false, nil)
	}
	if f.graves > maxTombstones || len(f.rows) > maxTombstones+1 {
		t.Fatalf("%d tombstones among %d rows", f.graves, len(f.rows))
	}
	if n := f.since(early); !n.full || len(n.changes) != 1 {
		t.Fatalf("who is far behind got full=%t and %d changes", n.full, len(n.changes))
	}
	if !f.since(f.floor-1).full || f.since(f.floor).full {
		t.Fatalf("the first that can be told is not what came after %d", f.floor)
	}
	if n := f.since(f.position() - 10); n.full || len(n.changes) != 5 {
		t.Fatalf("who is near got full=%t and %d changes", n.full, len(n.changes))
	}
}

func TestEventsAreBoundedAndTheOldestGo(t *testing.T) {
	f := newFacts("n/boot/")
	var tellers sync.WaitGroup
	for range 2 {
		tellers.Go(func() {
			for range maxEvents/2 + 5 {
				f.record(&pb.Event{})
			}
		})
	}
	tellers.Wait()
	events := f.since(0).events
	for n, e := range events { // the 10 oldest are gone
		if want := fmt.Sprint("n/boot/", 11+n); e.event.GetEventId() != want {
			t.Fatalf("event %d is %s, want %s: they are numbered in their order", n, e.event.GetEventId(), want)
		}
	}
	if len(events) != maxEvents || events[0].event.GetEventId() != "n/boot/11" || !slices.IsSortedFunc(events, func(a, b recordedEvent) int { return int(a.seq) - int(b.seq) }) {
		t.Fatalf("%d events are kept, the first is %s", len(events), events[0].event.GetEventId())
	}
	if few := f.since(f.position() - 3).events; len(few) != 3 {
		t.Fatalf("%d events of the last three changes", len(few))
	}
}

func TestLongReportsComeInPieces(t *testing.T) {
	f := newFacts("")
	big := &pb.InstanceSpec{Args: []string{string(make([]byte, 64<<10))}}
	for n := range 2500 {
		rec := &pb.Instance{InstanceId: fmt.Sprint(n), Revision: 1}
		if n < 200 {
			rec.Spec = big
		}
		f.put(rec, &pb.Event{})
	}
	for _, from := range []uint64{0, 2} {
		msgs := f.since(from).messages(maxReportRecords)
		if len(msgs) < 5 {
			t.Fatalf("%d messages for 2500 records with 13 MB", len(msgs))
		}
		v := newReplica()
		if from > 0 {
			v.bootID, v.seq = "b", from
			v.rows["0"] = f.get("0")
		}
		for n, m := range msgs {
			if size := proto.Size(m); size > maxReportBytes+(1<<20) || len(m.GetInstances()) > maxReportRecords {
				t.Fatalf("message %d has %d bytes and %d records", n, size, len(m.GetInstances()))
			}
			m.BootId = "b"
			if _, err := v.apply(m); err != nil {
				t.Fatal(err)
			}
		}
		if d := v.differs(f); d != "" {
			t.Fatal(d)
		}
		if from == 0 && len(v.events) != maxEvents {
			t.Fatalf("%d events came along, want %d", len(v.events), maxEvents)
		}
	}
	if p := pages(f.fullPage()); len(p) < 3 {
		t.Fatalf("%d pages", len(p))
	}
}

func (f *facts) fullPage() []*pb.Instance {
	_, all := f.snapshot()
	return all
}
