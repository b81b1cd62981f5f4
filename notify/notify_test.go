package notify

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestEachEventIsAValidCloudEvent(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 1, 31, 12, 0, 0, 123, time.UTC))
	for _, c := range []struct {
		event           *pb.Event
		source, subject string
	}{
		{&pb.Event{EventId: "n/b/1", Time: at, Type: "instance.started", NodeId: "n1", InstanceId: "i1", Name: "web"}, "wasmatrix://c1/n1", "i1"},
		{&pb.Event{EventId: "n/b/2", Time: at, Type: "node.lost", NodeId: "n2", Name: "b"}, "wasmatrix://c1/n2", "b"},
		{&pb.Event{EventId: "n/b/3", Time: at, Type: "provider.started", NodeId: "n1", Name: "cache", Details: map[string]string{"provider_type": "kv"}}, "wasmatrix://c1/n1", "cache"},
		{&pb.Event{EventId: "n/b/4", Time: at, Type: "instance.crashed", InstanceId: "i", Name: "<&>\u2028\x00", Details: map[string]string{"error": "\U0001F4A5\n"}}, "wasmatrix://c1/", "i"},
	} {
		raw, err := encode("c1", c.event)
		if err != nil {
			t.Fatal(err)
		}
		var got cloudevents.Event
		if err := got.UnmarshalJSON(raw); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if got.ID() != c.event.GetEventId() || got.Source() != c.source || got.Subject() != c.subject || got.Type() != "io.wasmatrix."+c.event.GetType() ||
			!got.Time().Equal(at.AsTime()) || got.DataContentType() != "application/json" || len(got.Extensions()) > 0 {
			t.Errorf("%s is %s", raw, got)
		}
		var data struct {
			Type, Name string
			Details    map[string]string
		}
		if err := got.DataAs(&data); err != nil || data.Type != c.event.GetType() || data.Name != c.event.GetName() || len(data.Details) != len(c.event.GetDetails()) {
			t.Errorf("%s holds %+v, %v", raw, data, err)
		}
	}
}

func TestEventsComeOnMessagingOfEachNode(t *testing.T) {
	a, b := cluster2(t, Config{})
	crashes, all := hear(t, b.server, "wasmatrix.events.*.crashed"), hear(t, a.server, "wasmatrix.events.>")
	crash := event("n1", 2, 0)
	crash.Type = "instance.crashed"
	a.log.Add([]*pb.Event{event("n1", 1, 0), crash})
	a.rules(true)
	for n, came := range []<-chan *nats.Msg{all, all, crashes} {
		got := next(t, came)
		if want := []string{"instance.started", "instance.crashed", "instance.crashed"}[n]; !strings.Contains(got, `"type":"io.wasmatrix.`+want) {
			t.Errorf("%d: %s is not of %s", n, got, want)
		}
	}
	a.log.Add([]*pb.Event{event("n1", 3, 0)})
	if got := next(t, all); !strings.Contains(got, `"id":"n1/boot/3"`) {
		t.Errorf("what happens later is %s", got)
	}
	eventually(t, "all three are counted", func() bool { return a.counted(t, "wasmatrix_events_delivered_total", "messaging") == 3 })
}

// All that happens is told once where leadership is handed over, and at least once where a leader dies and takes along what it has
// not announced.
func TestNextLeaderGoesOnWhereTheLastLeftOff(t *testing.T) {
	h := newHook(t)
	a, b := cluster2(t, Config{Webhooks: Webhooks{URLs: []string{h.URL}}})
	add := func(all []*pb.Event) { a.log.Add(all); b.log.Add(all) }
	heard := hear(t, b.server, "wasmatrix.events.>")
	a.rules(true)
	add(append(events("n1", 1, 40), events("n2", 1, 10)...))
	eventually(t, "half is told", func() bool { return len(h.ids()) >= 25 })
	a.rules(false)
	eventually(t, "the first has handed over", func() bool { return b.knows(1)+1 >= len(h.ids()) && b.knows(0) >= 25 })
	b.rules(true)
	add(events("n1", 41, 60))
	eventually(t, "all is told", func() bool { return len(unique(h.ids())) == 70 })
	if ids := h.ids(); len(ids) > 71 { // the one that was on its way
		t.Errorf("%d events were told, of 70", len(ids))
	}
	var ids []string
	for len(unique(ids)) < 70 {
		id, _, _ := strings.Cut(next(t, heard), `,"source"`)
		ids = append(ids, id)
	}

	// The other way: nobody hears of it.
	b.server.Close()
	add(events("n2", 11, 30))
	eventually(t, "more is told", func() bool { return len(unique(h.ids())) >= 80 })
	b.rules(false)
	a.rules(true)
	eventually(t, "the rest is told", func() bool { return len(unique(h.ids())) == 90 })
	for _, source := range []string{"n1", "n2"} {
		var own []string
		for _, id := range unique(h.ids()) {
			if strings.HasPrefix(id, source) {
				own = append(own, id)
			}
		}
		for n, id := range own {
			if id != fmt.Sprintf("%s/boot/%d", source, n+1) {
				t.Fatalf("%s comes at %d: %v", id, n, own)
			}
		}
	}
}

// A voter that has just started may have the history and not know that it was told.
func TestLeaderThatKnowsNothingTellsOnlyTheLastMinute(t *testing.T) {
	h := newHook(t)
	a, b := cluster2(t, Config{Webhooks: Webhooks{URLs: []string{h.URL}}})
	history := []*pb.Event{event("n1", 1, 7200), event("n1", 2, 120), event("n1", 3, 10), event("n1", 4, 0), event("n2", 1, 90)}
	a.log.Add(history)
	a.rules(true)
	eventually(t, "the last minute is told", func() bool { return slices.Equal(h.ids(), []string{"n1/boot/3", "n1/boot/4"}) })
	eventually(t, "the other voter knows", func() bool { return b.informed(1) && b.knows(1) == 4+1 }) // it is told again and again, until then
	a.rules(false)
	b.log.Add(history)
	b.log.Add([]*pb.Event{event("n3", 1, 600), event("n1", 5, 0)})
	b.rules(true) // it knows what was told, so an old event that was not is new
	eventually(t, "the rest is told", func() bool {
		return slices.Equal(h.ids(), []string{"n1/boot/3", "n1/boot/4", "n3/boot/1", "n1/boot/5"})
	})
}

// A receiver that hangs costs the control plane nothing, and itself the oldest events.
func TestSlowReceiverMissesTheOldestAndHoldsNobodyUp(t *testing.T) {
	release := make(chan struct{})
	h := newHook(t, func(http.ResponseWriter, *http.Request) { <-release })
	v := newVoter(t, Config{Webhooks: Webhooks{URLs: []string{h.URL}}}, "a")
	v.rules(true)
	v.log.Add(events("n1", 1, 1))
	eventually(t, "the receiver hangs", func() bool { return h.requests() == 1 })
	const total = 20_000
	for from := 2; from <= total; from += 5000 {
		v.log.Add(events("n1", from, min(from+4999, total)))
		eventually(t, "the other receiver is told", func() bool { return v.counted(t, "wasmatrix_events_delivered_total", "messaging") >= float64(from) })
	}
	close(release)
	name := shown(h.URL)
	eventually(t, "what is left is told", func() bool {
		return v.counted(t, "wasmatrix_events_dropped_total", name)+v.counted(t, "wasmatrix_events_delivered_total", name) == total
	})
	ids := h.ids()
	if len(ids) < 10_000 || len(ids) > 11_002 || ids[len(ids)-1] != fmt.Sprintf("n1/boot/%d", total) || ids[0] != "n1/boot/1" {
		t.Errorf("%d were told, the last is %s", len(ids), ids[len(ids)-1])
	}
}

// knows returns how many events a voter believes to be told, as far as the next leader would go on.
func (v *voter) knows(receiver int) (n int) {
	p := v.receivers[receiver].progress
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.passed {
		n += int(one.count)
	}
	return n
}

func (v *voter) informed(receiver int) bool {
	p := v.receivers[receiver].progress
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.informed
}

func unique(ids []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		twice := seen[id]
		seen[id] = true
		return twice
	})
}

func next(t *testing.T, came <-chan *nats.Msg) string {
	t.Helper()
	select {
	case m := <-came:
		return string(m.Data)
	case <-time.After(patience):
		t.Fatalf("no message within %s", patience)
		return ""
	}
}
