package chaos

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// story is a history in the making, whose clock goes a second with each event.
type story struct {
	events []Event
	seen   map[string]Seen
}

func (s *story) add(e Event) {
	e.Time, e.Round = time.Unix(int64(len(s.events)), 0), 1
	s.events = append(s.events, e)
}

// run is a start with its outcome.
func (s *story) run(instance, node, policy, phase string) {
	s.add(Event{What: Run, Phase: Asked, Instance: instance, Policy: policy})
	s.add(Event{What: Run, Phase: phase, Instance: instance, Policy: policy, Node: node})
}

func (s *story) stop(instance, phase string) {
	s.add(Event{What: Stop, Phase: Asked, Instance: instance})
	s.add(Event{What: Stop, Phase: phase, Instance: instance})
}

func (s *story) kill(nodes ...string) {
	s.add(Event{What: Struck, Fault: &Fault{Kind: Kill}, Nodes: nodes})
}

// lives makes an instance run on a node, as ps, the agent and the guest say.
func (s *story) lives(instance, node string) {
	row := Row{Instance: instance, Node: node, Status: "running", Generation: 1}
	here := s.seen[node]
	here.Runs = append(here.Runs, row)
	here.Pulses[instance] = append(here.Pulses[instance], "nonce"+instance)
	here.Guests++
	s.seen[node] = here
	for name, n := range s.seen {
		n.Lists = append(n.Lists, row)
		s.seen[name] = n
	}
}

func (s *story) change(node string, change func(*Seen)) {
	seen := s.seen[node]
	change(&seen)
	s.seen[node] = seen
}

func (s *story) look() {
	s.add(Event{What: Looked, Seen: s.seen})
	s.seen = nobody()
}

func nobody() map[string]Seen {
	seen := map[string]Seen{}
	for _, n := range []string{"n1", "n2", "n3"} {
		seen[n] = Seen{Pulses: map[string][]string{}, Gauges: Gauges{Goroutines: 100, OpenFiles: 30, DataBytes: 1 << 20}}
	}
	return seen
}

// honest is a history in which everything that can happen did, and all was well; it ends before the look.
func honest() *story {
	s := &story{seen: nobody()}
	s.run("steady", "n1", "always", OK)
	s.run("stopped", "n1", "always", OK)
	s.stop("stopped", OK)
	s.run("maybe-started", "", "always", Unknown)
	s.run("maybe-not", "", "always", Unknown)
	s.run("refused", "", "always", Failed)
	s.run("maybe-stopped", "n2", "always", OK)
	s.stop("maybe-stopped", Unknown)
	s.run("maybe-running", "n2", "always", OK)
	s.stop("maybe-running", Unknown)
	s.run("never", "n2", "never", OK) // its node may be declared lost
	s.lives("steady", "n3")           // it moved
	s.lives("maybe-started", "n1")
	s.lives("maybe-running", "n2")
	return s
}

func TestCheckAcceptsAnHonestHistory(t *testing.T) {
	s := honest()
	s.look()
	want(t, Check(s.events))
}

func TestCheckFindsWhatIsPlanted(t *testing.T) {
	for name, test := range map[string]struct {
		plant func(*story)
		want  string
	}{
		"a second copy that an agent knows of": {func(s *story) {
			s.change("n2", func(n *Seen) { n.Runs = append(n.Runs, Row{"steady", "n2", "running", 1}) })
		}, Double},
		"a second copy that only prints": {func(s *story) {
			s.change("n2", func(n *Seen) { n.Pulses["steady"] = []string{"other"} })
		}, Double},
		"a second copy on the same node": {func(s *story) {
			s.change("n3", func(n *Seen) { n.Pulses["steady"] = append(n.Pulses["steady"], "other") })
		}, Double},
		"a second copy of what was perhaps started": {func(s *story) {
			s.change("n2", func(n *Seen) { n.Pulses["maybe-started"] = []string{"other"} })
		}, Double},
		"a guest that nobody lists": {func(s *story) {
			s.change("n2", func(n *Seen) { n.Guests++ })
		}, Orphan},
		"a row twice": {func(s *story) {
			for _, node := range []string{"n1", "n2", "n3"} {
				s.change(node, func(n *Seen) { n.Lists = append(n.Lists, Row{"steady", "n1", "running", 1}) })
			}
		}, Double},
		"a lost instance":         {func(s *story) { s.run("gone", "n1", "always", OK) }, Lost},
		"a lost one still listed": {func(s *story) { s.change("n3", func(n *Seen) { n.Runs, n.Pulses, n.Guests = nil, nil, 0 }) }, Lost},
		"one that is silent":      {func(s *story) { s.change("n3", func(n *Seen) { n.Pulses = nil }) }, Lost},
		"one that never gets up": {func(s *story) {
			s.change("n3", func(n *Seen) { n.Runs[0].Status = "restarting" })
		}, Lost},
		"a stop that came back":             {func(s *story) { s.lives("stopped", "n2") }, Resurrected},
		"a stop whose guest only prints":    {func(s *story) { s.change("n2", func(n *Seen) { n.Pulses["stopped"] = []string{"x"} }) }, Resurrected},
		"a stop that is listed":             {func(s *story) { everyLists(s, Row{"stopped", "n1", "running", 1}) }, Resurrected},
		"a row of what no agent runs":       {func(s *story) { everyLists(s, Row{"maybe-not", "n1", "starting", 1}) }, Untrue},
		"a node that answers something new": {func(s *story) { s.change("n2", func(n *Seen) { n.Lists = n.Lists[1:] }) }, Disagree},
		"something that nobody asked for":   {func(s *story) { s.lives("who", "n2") }, Stranger},
	} {
		t.Run(name, func(t *testing.T) {
			s := honest()
			test.plant(s)
			s.look()
			want(t, Check(s.events), test.want)
		})
	}
}

func everyLists(s *story, row Row) {
	for _, node := range []string{"n1", "n2", "n3"} {
		s.change(node, func(n *Seen) { n.Lists = append(n.Lists, row) })
	}
}

func TestCheckFindsGrowth(t *testing.T) {
	s := honest()
	s.look()
	for _, grown := range []Gauges{{Goroutines: 5000}, {OpenFiles: 5000}, {DataBytes: 1 << 30}} {
		later := &story{events: slices.Clone(s.events), seen: honest().seen}
		later.change("n2", func(n *Seen) { n.Gauges = grown })
		later.look()
		want(t, Check(later.events), Growth)
	}
}

func TestHistoryIsReadAsItWasWritten(t *testing.T) {
	s := honest()
	s.kill("n1")
	s.look()
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, e := range s.events {
		if err := encoder.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	read, err := ReadHistory(&lines)
	if err != nil || len(read) != len(s.events) {
		t.Fatalf("%d events of %d, %v", len(read), len(s.events), err)
	}
	want(t, Check(read))
}

func want(t *testing.T, found []Violation, promises ...string) {
	t.Helper()
	var got []string
	for _, v := range found {
		got = append(got, v.Promise)
	}
	if !slices.Equal(got, promises) {
		t.Errorf("found %q, want %q\n%s", got, promises, strings.TrimSpace(violations(found).Error()))
	}
}
