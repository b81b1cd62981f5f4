package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// sent is one server-sent event, or a comment.
type sent struct{ id, kind, data, comment string }

// follower reads a stream of events as a browser does.
type follower struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

// follow opens a stream as a browser would that last saw the event lastID.
func follow(t *testing.T, base, lastID string) *follower {
	t.Helper()
	return followAt(t, base+"/v1/events", lastID)
}

func followAt(t *testing.T, url, lastID string) *follower {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, lines: bufio.NewScanner(resp.Body), close: func() { cancel(); _ = resp.Body.Close() }}
	f.lines.Buffer(nil, 1<<20)
	t.Cleanup(f.close)
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		t.Fatalf("%d %q", resp.StatusCode, ct)
	}
	return f
}

// next returns the next event or comment, and false at the stream's end.
func (f *follower) next() (sent, bool) {
	var one sent
	for f.lines.Scan() {
		key, value, _ := strings.Cut(f.lines.Text(), ": ")
		switch key {
		case "id":
			one.id = value
		case "event":
			one.kind = value
		case "data":
			one.data = value
		case "":
			if value != "" {
				one.comment = value
			} else if one.data != "" || one.comment != "" { // others are none, to browsers
				return one, true
			}
		}
	}
	return one, false
}

// events returns the next n events; comments are skipped.
func (f *follower) events(n int) []sent {
	f.t.Helper()
	var all []sent
	for len(all) < n {
		one, ok := f.next()
		if !ok {
			f.t.Fatalf("%d of %d events: %v", len(all), n, f.lines.Err())
		}
		if one.data != "" {
			all = append(all, one)
		}
	}
	return all
}

func ids(t *testing.T, all []sent) string {
	t.Helper()
	var got []string
	for _, one := range all {
		got = append(got, decode[api.Event](t, one.data).EventID)
	}
	return strings.Join(got, " ")
}

func TestEventsGoOnWhereAClientLeftOff(t *testing.T) {
	c := &plainCluster{}
	c.happen(event("x", 1, 1, "instance.started"), event("x", 2, 1, "instance.crashed"), event("x", 3, 2, "instance.restarted"))
	base := serve(t, c)
	first := follow(t, base, "").events(3)
	if first[0].kind != "instance.started" || first[0].id != "2027-01-15T08:00:01Z/x/1" || ids(t, first) != "x/1 x/2 x/3" {
		t.Fatalf("%+v", first)
	}
	// Also between two events of one moment nothing is lost and nothing comes twice.
	for last, want := range map[string]string{first[0].id: "x/2 x/3", first[1].id: "x/3"} {
		again := follow(t, base, last)
		if got := ids(t, again.events(strings.Count(want, " ")+1)); got != want {
			t.Errorf("after %s: %s, want %s", last, got, want)
		}
	}
	again := follow(t, base, first[2].id)
	c.happen(event("x", 4, 3, "instance.stopped"))
	if got := ids(t, again.events(1)); got != "x/4" {
		t.Errorf("after the last: %s, want the one that comes", got)
	}
}

func TestEventsOfSlowClocksAreNotLostAtAReconnect(t *testing.T) {
	c := &plainCluster{}
	c.happen(event("x", 1, 100, "instance.started"))
	base := serve(t, c)
	last := follow(t, base, "").events(1)[0].id
	c.happen(event("y", 1, 97, "instance.started"), event("x", 2, 101, "instance.stopped"))
	if got := ids(t, follow(t, base, last).events(2)); got != "y/1 x/2" {
		t.Errorf("got %s", got)
	}
}

func TestStreamOfEventsOutlivesTheLeader(t *testing.T) {
	c := &plainCluster{}
	c.happen(event("x", 1, 1, "instance.started"), event("y", 1, 2, "instance.started"))
	f := follow(t, serve(t, c), "")
	if got := ids(t, f.events(2)); got != "x/1 y/1" {
		t.Fatalf("got %s", got)
	}
	c.setDown(rpc.Errorf(rpc.NoLeader, "nobody leads"))
	c.happen(event("x", 2, 3, "instance.crashed"), event("y", 2, 2, "instance.stopped"))
	c.setDown(nil)
	c.depose()
	c.happen(event("y", 3, 4, "leader.elected"))
	if got := ids(t, f.events(3)); got != "x/2 y/2 y/3" {
		t.Errorf("got %s, want each of the rest once", got)
	}
}

func TestQuietStreamBeatsAndOutlivesTheReadTimeout(t *testing.T) {
	c := &plainCluster{}
	s := newServer(t, "127.0.0.1:0", c)
	s.heartbeat = 30 * time.Millisecond
	s.http.ReadTimeout, s.http.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	f := follow(t, run(t, s), "")
	for range 10 {
		if one, ok := f.next(); !ok || one.comment != "heartbeat" {
			t.Fatalf("%+v, %v", one, f.lines.Err())
		}
	}
	c.happen(event("x", 1, 1, "instance.started"))
	f.events(1)
}

func TestStreamsEndWithTheServer(t *testing.T) {
	c := &plainCluster{}
	s := newServer(t, "127.0.0.1:0", c)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f := follow(t, "http://"+s.Addr().String(), "")
	c.happen(event("x", 1, 1, "instance.started"))
	f.events(1)
	began := time.Now()
	cancel()
	if one, ok := f.next(); ok || f.lines.Err() != nil {
		t.Errorf("the stream did not end in order: %+v, %v", one, f.lines.Err())
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > shutdownTimeout {
		t.Errorf("the server took %s to stop", took)
	}
	if len(s.streams) != 0 {
		t.Errorf("%d streams are left", len(s.streams))
	}
}

func TestFollowerThatLeavesIsForgotten(t *testing.T) {
	c := &plainCluster{}
	s := newServer(t, "127.0.0.1:0", c)
	s.streams = make(gate, 1)
	base := run(t, s)
	f := follow(t, base, "")
	if resp, body := get(t, base+"/v1/events"); resp.StatusCode != http.StatusTooManyRequests || decode[api.Error](t, body).ErrorCode != "RESOURCE_EXHAUSTED" {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	f.close()
	for deadline := time.Now().Add(5 * time.Second); len(s.streams) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stream of a follower that left is still there after 5 s")
		}
	}
}

func TestEventsCannotBeForged(t *testing.T) {
	c := &plainCluster{}
	c.happen(&pb.Event{
		EventId: "x/1\n\nevent: forged\ndata: {}\n\n", Type: "instance.started\r\ndata: {}", Time: timestamppb.Now(),
		Name: "a\n\nevent: forged\ndata: {}\n\n",
	}, event("x", 2, 1, "last"))
	all := follow(t, serve(t, c), "").events(2)
	if all[1].kind != "last" || strings.Contains(all[0].kind, "\r") {
		t.Errorf("%+v", all)
	}
}

func TestHeadOfEventsReturns(t *testing.T) {
	resp, err := http.Head(serve(t, &plainCluster{}) + "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || len(body) > 0 || resp.StatusCode != http.StatusOK {
		t.Errorf("%d %q %v", resp.StatusCode, body, err)
	}
}

// Whatever sources there are and wherever the leader is lost, a follower gets all events, each once: the
// sources' clocks may go back, but not be apart by more than the overlap.
func TestCursorPassesEachEventOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kept := []*pb.Event{}
		counts := map[string]int{}
		c := cursor{passed: map[string]uint64{}}
		got := map[string]int{}
		for round := range rapid.IntRange(1, 6).Draw(t, "leaders") {
			for range rapid.IntRange(0, 8).Draw(t, "new") {
				source := rapid.SampledFrom([]string{"x/1", "x/2", "y/1"}).Draw(t, "source")
				counts[source]++
				at := int64(round) + rapid.Int64Range(-4, 0).Draw(t, "clock")
				kept = append(kept, event(source, counts[source], at, "e"))
			}
			// As the control plane does: those after since, by time.
			since := c.request().GetSince()
			batch := slices.DeleteFunc(slices.Clone(kept), func(e *pb.Event) bool {
				return since != nil && !e.GetTime().AsTime().After(since.AsTime())
			})
			slices.SortStableFunc(batch, func(a, b *pb.Event) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
			known := map[string]uint64{}
			for source, n := range c.passed {
				known[source] = n
			}
			for _, e := range batch {
				if c.pass(e, known) {
					got[e.GetEventId()]++
				}
			}
		}
		for _, e := range kept {
			if got[e.GetEventId()] != 1 {
				t.Fatalf("event %s came %d times", e.GetEventId(), got[e.GetEventId()])
			}
		}
	})
}

func FuzzResume(f *testing.F) {
	for _, seed := range []string{"", "/", "2027-01-15T08:00:01Z/x/1", "2027-01-15T08:00:01Z/99999999999999999999999", "x/1", "0001-01-01T00:00:00Z/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, last string) {
		c, err := resume(last, nil)
		if err != nil {
			t.Fatal(err)
		}
		if since := c.request().GetSince(); since != nil && since.CheckValid() != nil {
			t.Fatal(fmt.Errorf("%q: %w", last, since.CheckValid()))
		}
	})
}
