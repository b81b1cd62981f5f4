package web

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// watch opens the stream of an open page.
func watch(t *testing.T, base, view, has string) *follower {
	t.Helper()
	return followAt(t, base+"/live?"+url.Values{"view": {view}, "has": {has}}.Encode(), "")
}

// swap returns the pieces that an open page is told next, by name.
func (f *follower) swap() map[string]piece {
	f.t.Helper()
	for {
		one, ok := f.next()
		if !ok {
			f.t.Fatalf("the stream ended: %v", f.lines.Err())
		}
		if one.kind != "swap" {
			continue
		}
		var pieces []piece
		if err := json.Unmarshal([]byte(one.data), &pieces); err != nil {
			f.t.Fatal(err)
		}
		by := map[string]piece{}
		for _, p := range pieces {
			by[p.Name] = p
		}
		return by
	}
}

func TestOpenPageIsToldWhatItDoesNotHaveAndThenWhatChanged(t *testing.T) {
	c := busyCluster(10)
	base := serve(t, c)
	f := watch(t, base, "/instances", "")
	first := f.swap()
	if len(first) != 3 || !strings.Contains(string(first["instances"].HTML), "web-0") {
		t.Fatalf("first came %v", first)
	}
	// Another page that has nearly all of it hears of the rest only.
	has := "summary:" + first["summary"].Hash + ",statuses:" + first["statuses"].Hash + ",instances:old"
	if second := watch(t, base, "/instances", has).swap(); len(second) != 1 || second["instances"].HTML != first["instances"].HTML {
		t.Errorf("the one that has most is told %v", second)
	}
	c.crash("out of luck")
	changed := f.swap()
	if _, told := changed["summary"]; told || !strings.Contains(string(changed["statuses"].HTML), "crashed <b>2</b>") {
		t.Errorf("of the crash is told %v", changed)
	}
}

// Who looks costs the leader the same, be it one page or many.
func TestPagesOfANodeShareWhatIsAskedOfTheLeader(t *testing.T) {
	c := busyCluster(10)
	s := newServer(t, "127.0.0.1:0", c)
	s.hub.every = time.Hour // only what happens has it look again
	base := run(t, s)
	var all []*follower
	for range 20 {
		f := watch(t, base, "/instances", "")
		f.swap()
		all = append(all, f)
	}
	c.crash("for all to see")
	for _, f := range all {
		for !strings.Contains(string(f.swap()["statuses"].HTML), "crashed <b>2</b>") {
		}
	}
	c.mu.Lock()
	listed, followed := c.listed, c.followed
	c.mu.Unlock()
	// A list at first, one once the events are there, and one for the crash; a stream for what was before and one for
	// what comes.
	if listed > 3 || followed > 2 {
		t.Errorf("20 pages made %d lists and %d streams of events", listed, followed)
	}
}

func TestNodeLooksAtNothingOnceTheLastPageHasClosed(t *testing.T) {
	s := newServer(t, "127.0.0.1:0", busyCluster(10))
	s.hub.every, s.hub.linger = 20*time.Millisecond, 10*time.Millisecond
	base := run(t, s)
	f := watch(t, base, "/instances", "")
	f.swap()
	f.close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.hub.mu.Lock()
		asleep := s.hub.pages == 0 && s.hub.newest == nil
		s.hub.mu.Unlock()
		if asleep {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it still looks")
		}
	}
	watch(t, base, "/instances", "").swap() // and it wakes again
}

func TestHubKeepsTheNewestEvents(t *testing.T) {
	h := newHub(New(Config{}))
	h.begin(nil)
	for n := range 3 * keptEvents / 100 {
		var some []*pb.Event
		for i := range 100 {
			some = append(some, event("a", 100*n+i, 0, "e"))
		}
		h.keep(some)
	}
	kept := h.look(t.Context()).kept
	if n := len(kept); n < keptEvents || n > keptEvents*11/10 {
		t.Errorf("%d events are kept", n)
	}
	if newest := kept[len(kept)-1].EventID; newest != event("a", 3*keptEvents-1, 0, "e").GetEventId() {
		t.Errorf("the newest is %s", newest)
	}
}

func TestOutputIsToldOnceWhereverItIsReadAgain(t *testing.T) {
	c := busyCluster(4)
	c.write("01a2-000001", "stdout", []byte("one"))
	f := watch(t, serve(t, c), "/instances/01a2-000001", "")
	lines := func() []logLine {
		for {
			one, ok := f.next()
			if !ok {
				t.Fatalf("the stream ended: %v", f.lines.Err())
			}
			if one.kind == "log" {
				var some []logLine
				if err := json.Unmarshal([]byte(one.data), &some); err != nil {
					t.Fatal(err)
				}
				return some
			}
		}
	}
	if got := lines(); len(got) != 1 || got[0].Text != "one" {
		t.Fatalf("%v", got)
	}
	c.write("01a2-000001", "stderr", []byte("two"))
	if got := lines(); len(got) != 1 || got[0].Text != "two" || got[0].Stream != "stderr" {
		t.Fatalf("%v", got)
	}
}
