package web

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// column is a heading of the list that it can be sorted by.
type column struct {
	Name, Link string
	Order      string // "ascending", "descending", or empty where another one decides
}

// instanceList is one page of the list.
type instanceList struct {
	pages

	Columns   []column
	Instances []api.Instance
}

// listOf returns the request that a question stands for: live instances, unless it says which.
func (q question) listOf() (*pb.ListInstancesRequest, error) {
	req := &pb.ListInstancesRequest{
		Filter: q.values.Get("q"), Name: q.values.Get("name"), Node: q.values.Get("node"),
		Offset: uint32((q.page() - 1) * perPage), Limit: perPage,
	}
	switch status := q.values.Get("status"); status {
	case "", "live":
	case "all":
		req.All = true
	default:
		named, ok := api.StatusNamed(status)
		if !ok {
			return nil, rpc.Errorf(rpc.InvalidRequest, "status=%q is none of live, all, %s", status, strings.Join(api.Statuses(), ", "))
		}
		req.Statuses = []pb.InstanceStatus{named}
	}
	var err error
	req.Sort, req.Descending, err = sortOf(q.values.Get("sort"))
	return req, err
}

func loadInstances(m *moment, q question) (any, error) {
	req, err := q.listOf()
	if err != nil {
		return nil, err
	}
	found, err := m.Instances(q.URL(), req)
	if err != nil {
		return nil, err
	}
	list := instanceList{pages: q.pages(found.Total), Instances: found.Instances}
	by := q.values.Get("sort")
	for _, name := range []string{"name", "status", "node", "started", "restarts", "cpu", "memory"} {
		c := column{Name: name, Link: q.with("sort", name)}
		switch by {
		case name:
			c.Order, c.Link = "ascending", q.with("sort", "-"+name)
		case "-" + name:
			c.Order, c.Link = "descending", q.with("sort", "")
		case "":
			if slices.Contains([]string{"started", "restarts", "cpu", "memory"}, name) {
				c.Link = q.with("sort", "-"+name) // the newest and largest are what one looks for
			}
		}
		list.Columns = append(list.Columns, c)
	}
	return list, nil
}

func loadStatuses(m *moment, q question) (any, error) {
	status, err := m.Status()
	if err != nil {
		return nil, err
	}
	chosen := q.values.Get("status")
	if chosen == "" {
		chosen = "live"
	}
	in := status.Instances
	var all uint32
	for _, n := range in {
		all += n
	}
	first := []figure{
		{Name: "live", N: in["running"] + in["starting"] + in["restarting"], Link: q.with("status", ""), Chosen: chosen == "live"},
		{Name: "all", N: all, Link: q.with("status", "all"), Chosen: chosen == "all"},
	}
	return append(first, figures(in, func(name string) string { return q.with("status", name) }, chosen)...), nil
}

func loadRecord(m *moment, q question) (any, error) { return m.Instance(q.ref) }

// lifeStory is an instance's life as events tell it.
type lifeStory struct {
	Instance api.Instance
	Events   []happening // the newest first
	More     bool        // there are older ones
	Link     string      // to all of them
	Strip    strip
}

// shownLife is how many events of a life are shown: a crash loop has thousands.
const shownLife = 12

func loadLife(m *moment, q question) (any, error) {
	one, err := m.Instance(q.ref)
	if err != nil {
		return nil, err
	}
	events, err := m.eventsOf(&pb.WatchEventsRequest{InstanceId: one.InstanceID})
	if err != nil {
		return nil, err
	}
	mine := newest(events, mostSpans, func(e api.Event) bool { return e.InstanceID == one.InstanceID })
	story := lifeStory{
		Instance: one, Events: m.happenings(mine[:min(shownLife, len(mine))]), More: len(mine) > shownLife,
		Link: "/events?q=" + url.QueryEscape(one.InstanceID), Strip: stripOf(one, mine, m.at),
	}
	return story, nil
}

// mostSpans bounds the strip: more would be narrower than a pixel.
const mostSpans = 400

// strip draws a life as one bar: when it ran, and when it did not.
type strip struct {
	Spans    []span
	From, To time.Time
	Now      bool // it goes on
}

// span is a time in which an instance was in one state. Its place is in thousandths of the strip.
type span struct {
	State    string
	At, Wide float64
}

// X and Width are its place as SVG wants it.
func (s span) X() string { return strconv.FormatFloat(s.At, 'f', 1, 64) }

// Width is at least what one can see.
func (s span) Width() string { return strconv.FormatFloat(max(s.Wide, 2), 'f', 1, 64) }

// FromWords is when the strip begins.
func (s strip) FromWords() string { return at(&s.From) }

// ToWords is when it ends.
func (s strip) ToWords() string {
	if s.Now {
		return "now"
	}
	return at(&s.To)
}

// stripOf draws from an instance's newest events. It is pure.
func stripOf(one api.Instance, newestFirst []api.Event, now time.Time) strip {
	var s strip
	var marks []api.Event
	states := map[string]string{
		"instance.started": "running", "instance.restarted": "running", "instance.crashed": "crashed", "instance.stopped": "stopped",
		"instance.lost": "lost", "instance.relocated": "running",
	}
	for _, e := range slices.Backward(newestFirst) {
		if states[e.Type] != "" && e.Time != nil {
			marks = append(marks, e)
		}
	}
	if len(marks) == 0 {
		return s
	}
	s.From, s.To, s.Now = *marks[0].Time, now, true
	if one.FinishedAt != nil && one.Status != "restarting" && one.FinishedAt.After(s.From) && one.FinishedAt.Before(now) {
		s.Now = false
		s.To = one.FinishedAt.Add(max(time.Second, one.FinishedAt.Sub(s.From)/50)) // so that its end can be seen
	}
	whole := s.To.Sub(s.From)
	if whole <= 0 {
		return strip{}
	}
	place := func(t time.Time) float64 {
		return 1000 * float64(min(max(t.Sub(s.From), 0), whole)) / float64(whole)
	}
	for i, e := range marks {
		end := s.To
		if i+1 < len(marks) {
			end = *marks[i+1].Time
		}
		at := place(*e.Time)
		s.Spans = append(s.Spans, span{states[e.Type], at, max(place(end)-at, 0)})
	}
	return s
}
