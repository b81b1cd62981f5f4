package web

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// fewTiles is how many nodes the overview shows.
const fewTiles = 24

// nodeList is some of the nodes, those in trouble first.
type nodeList struct {
	pages

	Nodes []api.Member
	More  int // how many are not shown
}

func loadNodes(m *moment, q question) (any, error) {
	all, err := m.Members()
	if err != nil {
		return nil, err
	}
	all = slices.Clone(all) // others share it
	rank := func(n api.Member) int {
		return cmp.Or(slices.Index([]string{"dead", "suspect", "draining", "alive", "left"}, n.State), 0)
	}
	role := func(n api.Member) int { return slices.Index([]string{"leader", "voter", "agent"}, n.Role) }
	slices.SortStableFunc(all, func(a, b api.Member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(role(a), role(b)), strings.Compare(a.Name, b.Name))
	})
	list := nodeList{pages: q.pages(len(all))}
	if q.view.name == "overview" {
		list.Nodes = all[:min(fewTiles, len(all))]
		list.More = len(all) - len(list.Nodes)
		return list, nil
	}
	from := min(list.First()-1, len(all))
	list.Nodes = all[from:min(from+perPage, len(all))]
	return list, nil
}

// member returns the node of a name or id.
func (m *moment) member(ref string) (api.Member, error) {
	all, err := m.Members()
	if err != nil {
		return api.Member{}, err
	}
	i := slices.IndexFunc(all, func(n api.Member) bool { return n.Name == ref || n.NodeID == ref })
	if i < 0 {
		return api.Member{}, rpc.Errorf(rpc.NodeNotFound, "no node %q is in the cluster", ref)
	}
	return all[i], nil
}

func loadNode(m *moment, q question) (any, error) { return m.member(q.ref) }

// onNode is what runs on a node, the newest first.
type onNode struct {
	Instances []api.Instance
	Total     int
	Link      string // to all of them
}

func loadOnNode(m *moment, q question) (any, error) {
	node, err := m.member(q.ref)
	if err != nil {
		return nil, err
	}
	found, err := m.Instances(q.path, &pb.ListInstancesRequest{
		Node: node.NodeID, Limit: fewRows, Sort: pb.InstanceSort_INSTANCE_SORT_STARTED, Descending: true,
	})
	return onNode{found.Instances, found.Total, "/instances?node=" + url.QueryEscape(node.Name)}, err
}

func loadNodeEvents(m *moment, q question) (any, error) {
	node, err := m.member(q.ref)
	if err != nil {
		return nil, err
	}
	events, err := m.eventsOf(&pb.WatchEventsRequest{NodeId: node.NodeID})
	return m.happenings(newest(events, 2*fewRows, func(e api.Event) bool { return e.NodeID == node.NodeID })), err
}

func loadProviders(m *moment, _ question) (any, error) { return m.Providers() }

// eventList is one page of the events, the newest first.
type eventList struct {
	pages

	Events []happening
	Types  []string // those there are
}

func loadEvents(m *moment, q question) (any, error) {
	events, err := m.Events()
	if err != nil {
		return nil, err
	}
	kind, words := q.values.Get("type"), strings.ToLower(q.values.Get("q"))
	known := map[string]bool{}
	var found []api.Event
	for _, e := range slices.Backward(events) {
		known[e.Type] = true
		if (kind == "" || e.Type == kind || strings.HasPrefix(e.Type, kind+".")) && (words == "" || mentions(e, words)) {
			found = append(found, e)
		}
	}
	list := eventList{pages: q.pages(len(found))}
	from := min(list.First()-1, len(found))
	list.Events = m.traced(found[from:min(from+perPage, len(found))])
	for name := range known {
		list.Types = append(list.Types, name)
	}
	slices.Sort(list.Types)
	return list, nil
}

// mentions says whether an event has a text in it, in lower case.
func mentions(e api.Event, words string) bool {
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), words) }
	if has(e.InstanceID) || has(e.Name) || has(e.NodeID) {
		return true
	}
	for _, value := range e.Details {
		if has(value) {
			return true
		}
	}
	return false
}
