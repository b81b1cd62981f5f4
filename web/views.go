package web

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// perPage is how many instances or events are shown at once: a browser takes seconds for 10,000 rows.
	perPage = 100
	// fewRows is how many a part of a larger view shows.
	fewRows = 8
	// maxFilter bounds what is looked for, in bytes.
	maxFilter = 200
)

// view is one page that a URL leads to: a frame, and pieces that are swapped when they change.
type view struct {
	name, title string
	pieces      []part
}

// part is one piece of a view. Its data come from load; an error is shown in its place.
type part struct {
	name string
	load func(m *moment, q question) (any, error)
}

// question is what a visitor asks of a view: the words of its path, and its filters.
type question struct {
	view   *view
	path   string
	ref    string // an instance's id, or a node's name
	values url.Values
}

// views are the pages by their path. A reference follows where the path ends in a slash.
func views() map[string]*view {
	summary := part{"summary", loadSummary}
	return map[string]*view{
		"/":           {"overview", "Overview", []part{summary, {"attention", loadAttention}, {"figures", loadFigures}, {"charts", loadCharts}, {"tiles", loadNodes}, {"recent", loadRecent}}},
		"/instances":  {"instances", "Instances", []part{summary, {"statuses", loadStatuses}, {"instances", loadInstances}}},
		"/instances/": {"instance", "Instance", []part{summary, {"record", loadRecord}, {"life", loadLife}}},
		"/nodes":      {"nodes", "Nodes", []part{summary, {"tiles", loadNodes}}},
		"/nodes/":     {"node", "Node", []part{summary, {"node", loadNode}, {"on-node", loadOnNode}, {"at-node", loadNodeEvents}}},
		"/providers":  {"providers", "Providers", []part{summary, {"providers", loadProviders}}},
		"/events":     {"events", "Events", []part{summary, {"events", loadEvents}}},
	}
}

// see returns what a URL asks, or an error that says what is wrong with it.
func (s *Server) see(u *url.URL) (question, error) {
	q := question{path: u.Path, values: u.Query()}
	at, ref := u.Path, ""
	if i := strings.IndexByte(strings.TrimPrefix(u.Path, "/"), '/'); i > 0 {
		at, ref = u.Path[:i+2], u.Path[i+2:]
	}
	q.view, q.ref = s.views[at], ref
	if q.view == nil || strings.HasSuffix(at, "/") != (ref != "") && at != "/" {
		return q, rpc.Errorf(rpc.InvalidRequest, "there is no page at %q", u.Path)
	}
	if err := text("the reference", ref); err != nil {
		return q, err
	}
	for key, some := range q.values {
		for _, value := range some {
			if err := text(key, value); err != nil {
				return q, err
			}
			if len(value) > maxFilter {
				return q, rpc.Errorf(rpc.InvalidRequest, "%s is longer than %d bytes", key, maxFilter)
			}
		}
	}
	return q, nil
}

// URL is where the question is asked.
func (q question) URL() string { return q.with("", "") }

// with returns the URL of the same question with one answer changed, from the first page.
func (q question) with(key, value string) string {
	values := url.Values{}
	for _, known := range []string{"q", "status", "node", "name", "sort", "type", "page"} {
		if v := q.values.Get(known); v != "" && (key == "" || known != "page") {
			values.Set(known, v)
		}
	}
	if key != "" {
		values.Set(key, value)
	}
	if value == "" && key != "" {
		values.Del(key)
	}
	u := url.URL{Path: q.path, RawQuery: values.Encode()}
	return u.String()
}

// ViewName is the view that is asked for.
func (q question) ViewName() string { return q.view.name }

// Ref is the instance or node that is asked for.
func (q question) Ref() string { return q.ref }

// Value is an answer that the visitor gave.
func (q question) Value(key string) string { return q.values.Get(key) }

// Others are those of the keys that the visitor gave an answer to.
func (q question) Others(keys ...string) []string {
	return slices.DeleteFunc(keys, func(key string) bool { return !q.values.Has(key) })
}

// Asked says whether the visitor wants to see but a part.
func (q question) Asked() bool {
	return len(q.Others("q", "status", "node", "name", "type", "page")) > 0
}

// EventTypes are those that a visitor may choose from; empty for all.
func (q question) EventTypes() []string {
	known := []string{
		"", "instance", "instance.started", "instance.stopped", "instance.crashed", "instance.restarted", "instance.relocated", "instance.lost",
		"node", "leader", "capability", "capability.denied", "provider",
	}
	if chosen := q.Value("type"); !slices.Contains(known, chosen) {
		known = append(known, chosen)
	}
	return known
}

// pages is where one is in a long list.
type pages struct {
	question

	Page, Total, Shown int
}

func (q question) pages(total int) pages {
	p := pages{question: q, Page: q.page(), Total: total}
	p.Shown = max(0, min(perPage, total-(p.Page-1)*perPage))
	return p
}

func (q question) page() int {
	n, err := strconv.Atoi(q.values.Get("page"))
	if err != nil {
		return 1
	}
	return min(max(n, 1), 1_000_000)
}

// First and Last are the places of what is shown, from 1.
func (p pages) First() int { return (p.Page-1)*perPage + 1 }

// Last is the place of the last that is shown.
func (p pages) Last() int { return p.First() + p.Shown - 1 }

// Before is where the page before is; empty on the first.
func (p pages) Before() string {
	if p.Page <= 1 {
		return ""
	}
	return p.at(p.Page - 1)
}

// After is where the page after is; empty on the last.
func (p pages) After() string {
	if p.Page*perPage >= p.Total {
		return ""
	}
	return p.at(p.Page + 1)
}

func (p pages) at(page int) string { return p.with("page", strconv.Itoa(page)) }
