package web

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/wasmatrix/wasmatrix/api"
)

// summary is the line on top of each view.
type summary struct {
	Node    string // this one
	Problem string // why there is no Status
	Status  *api.Status
}

// loadSummary never fails: that there is no leader is what it says.
func loadSummary(m *moment, _ question) (any, error) {
	status, err := m.Status()
	if err != nil {
		return summary{Node: m.s.cfg.NodeName, Problem: api.FromError(err).Message}, nil
	}
	return summary{Node: m.s.cfg.NodeName, Status: status}, nil
}

// attention is what an operator should look at, the worst first.
type attention struct {
	Level    string // "good", "warn" or "bad"
	Headline string
	Concerns []concern
}

// concern is one such thing, and where it is shown.
type concern struct {
	Level string
	Text  string
	Link  string
}

func loadAttention(m *moment, _ question) (any, error) {
	status, err := m.Status()
	if err != nil {
		return nil, err
	}
	members, err := m.Members()
	if err != nil {
		return nil, err
	}
	providers, err := m.Providers()
	if err != nil {
		return nil, err
	}
	return judge(status, members, providers), nil
}

// judge says what is worth a look. It is pure.
func judge(status *api.Status, members []api.Member, providers []api.Provider) attention {
	var all []concern
	add := func(level, link, format string, args ...any) {
		all = append(all, concern{level, fmt.Sprintf(format, args...), link})
	}
	if status.Recovering {
		add("warn", "", "The leader is new and rebuilds its view; some instances may not be listed yet.")
	}
	all = append(all, judgeMembers(status, members)...)
	for _, p := range providers {
		for node, what := range p.Failures {
			add("bad", "/providers", "Provider %s fails on %s: %s", p.ProviderID, node, what)
		}
	}
	count := func(level, state, one, many string) {
		if n := status.Instances[state]; n == 1 {
			add(level, "/instances?status="+state, "%s", one)
		} else if n > 1 {
			add(level, "/instances?status="+state, many, n)
		}
	}
	count("bad", "lost", "1 instance was lost with its node", "%d instances were lost with their node")
	count("bad", "crashed", "1 instance crashed and is not started again", "%d instances crashed and are not started again")
	count("warn", "restarting", "1 instance waits for its next start", "%d instances wait for their next start")

	slices.SortStableFunc(all, func(a, b concern) int { return cmp.Compare(a.Level, b.Level) }) // bad, note, warn
	at := attention{Level: "good", Headline: "All is well", Concerns: all}
	for _, c := range all {
		switch {
		case c.Level == "bad":
			at.Level, at.Headline = "bad", "Something is wrong"
		case c.Level == "warn" && at.Level != "bad":
			at.Level, at.Headline = "warn", "Worth a look"
		}
	}
	return at
}

func judgeMembers(status *api.Status, members []api.Member) []concern {
	var all []concern
	versions := map[string]bool{}
	voters, dead := len(status.Voters), 0
	for _, n := range members {
		link := "/nodes/" + url.PathEscape(n.Name)
		switch n.State {
		case "dead":
			if n.Role != "agent" {
				dead++
			}
			all = append(all, concern{"bad", "Node " + n.Name + " is dead", link})
		case "suspect":
			all = append(all, concern{"warn", "Node " + n.Name + " is there, but its agent is not heard", link})
		case "draining":
			all = append(all, concern{"warn", "Node " + n.Name + " is drained and takes no new instances", link})
		}
		if n.State != "left" && n.State != "dead" {
			versions[n.Version] = true
			if full := shareOf(n.CommittedMemoryBytes, n.MaxMemoryBytes); full.of >= nearlyFull {
				all = append(all, concern{"warn", fmt.Sprintf("Node %s has promised %s %% of the memory that it has for instances", n.Name, brief(100*full.of)), link})
			}
		}
	}
	if dead > 0 && voters-dead-1 <= voters/2 {
		all = append(all, concern{"bad", fmt.Sprintf("%d of %d voters are dead: with one more the cluster has no leader", dead, voters), "/nodes"})
	}
	if len(versions) > 1 {
		known := make([]string, 0, len(versions))
		for v := range versions {
			known = append(known, v)
		}
		slices.Sort(known)
		all = append(all, concern{"warn", "Nodes run different versions: " + strings.Join(known, ", "), "/nodes"})
	}
	return all
}

// figure is how many there are of something.
type figure struct {
	Name, Link string
	N          uint32
	Chosen     bool
}

// life is the order in which statuses are shown.
var life = []string{"running", "starting", "restarting", "crashed", "lost", "stopped"}

func loadFigures(m *moment, _ question) (any, error) {
	status, err := m.Status()
	if err != nil {
		return nil, err
	}
	return figures(status.Instances, func(name string) string { return "/instances?status=" + name }, ""), nil
}

// figures puts statuses in the order of their interest; unknown ones last.
func figures(byStatus map[string]uint32, link func(string) string, chosen string) []figure {
	var all []figure
	for _, name := range life {
		all = append(all, figure{Name: name, N: byStatus[name]})
	}
	for name, n := range byStatus {
		if !slices.Contains(life, name) {
			all = append(all, figure{Name: name, N: n})
		}
	}
	for i := range all {
		all[i].Link, all[i].Chosen = link(all[i].Name), all[i].Name == chosen
	}
	return all
}

func loadRecent(m *moment, _ question) (any, error) {
	events, err := m.Events()
	return m.happenings(newest(events, fewRows, func(api.Event) bool { return true })), err
}

// happening is an event, and what its node is called.
type happening struct {
	api.Event

	Node string
}

// happenings are events as most views show them: without the ids of requests.
func (m *moment) happenings(events []api.Event) []happening {
	all := m.traced(events)
	for i, e := range all {
		all[i].Details = maps.Clone(e.Details)
		for _, id := range []string{"correlation_id", "trace_id"} {
			delete(all[i].Details, id)
		}
	}
	return all
}

// traced are events with all that they tell.
func (m *moment) traced(events []api.Event) []happening {
	names := m.names()
	all := make([]happening, 0, len(events))
	for _, e := range events {
		all = append(all, happening{e, cmp.Or(names[e.NodeID], e.NodeID)})
	}
	return all
}

// newest returns the newest events that are wanted, the newest first.
func newest(events []api.Event, most int, wanted func(api.Event) bool) []api.Event {
	var some []api.Event
	for _, e := range slices.Backward(events) {
		if len(some) == most {
			break
		}
		if wanted(e) {
			some = append(some, e)
		}
	}
	return some
}
