package web

import (
	"bytes"
	"context"
	_ "embed" // for the page and its style
	"errors"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// refreshAfter is how often the page asks again.
	refreshAfter = 5 * time.Second
	// shownInstances bounds the instances on the page: a browser takes seconds for 10,000 rows.
	shownInstances = 500
	// shownEvents are the newest of the last hour.
	shownEvents = 30
)

var (
	//go:embed page.css
	style []byte
	//go:embed page.html
	pageSource string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"age": age}).Parse(pageSource))
)

// view is all that the page shows.
type view struct {
	Node, Version string
	Now           time.Time
	Refresh       int // in seconds; 0 for never
	All           bool

	Problem string // why there is no Status
	Status  *api.Status
	Counts  []count

	Members        []api.Member
	MembersProblem string

	Instances        []api.Instance
	InstancesProblem string
	More             bool // there are more than are shown

	Events        []api.Event // the newest first
	EventsProblem string
}

// count is how many instances have a status.
type count struct {
	Status string
	N      uint32
}

// page shows the cluster to people. Without a leader it says so, and shows what this node knows.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	v := view{
		Node: s.cfg.NodeName, Version: s.cfg.Version, Now: time.Now().UTC(),
		Refresh: int(refreshAfter.Seconds()), All: query.Has("all"),
	}
	if query.Has("still") {
		v.Refresh = 0
	}
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	code := http.StatusOK
	var asking sync.WaitGroup
	asking.Go(func() {
		resp, err := s.askStatus(ctx, probeTimeout)
		if err != nil {
			err = s.explain(err)
			code, v.Problem = httpStatus(err), api.FromError(err).Message
			return
		}
		status := api.FromStatus(resp)
		v.Status, v.Counts = &status, counts(status.Instances)
	})
	asking.Go(func() {
		resp, err := s.cfg.ControlPlane.ListMembers(ctx, &pb.ListMembersRequest{})
		if err != nil {
			v.MembersProblem = api.FromError(s.explain(err)).Message
			return
		}
		v.Members = api.FromMembers(resp.GetMembers())
	})
	asking.Go(func() {
		found, err := s.someInstances(ctx, v.All)
		if err != nil {
			v.InstancesProblem = api.FromError(s.explain(err)).Message
		}
		v.More = len(found) > shownInstances
		v.Instances = api.FromInstances(found[:min(shownInstances, len(found))])
	})
	asking.Go(func() {
		found, err := s.newestEvents(ctx, v.Now.Add(-time.Hour))
		if err != nil {
			v.EventsProblem = api.FromError(s.explain(err)).Message
		}
		for _, e := range slices.Backward(found) {
			v.Events = append(v.Events, api.FromEvent(e))
		}
	})
	asking.Wait()

	var body bytes.Buffer // a page is whole or not at all
	if err := pageTemplate.Execute(&body, v); err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if code != http.StatusOK {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// someInstances returns more than are shown, if there are more.
func (s *Server) someInstances(ctx context.Context, all bool) ([]*pb.Instance, error) {
	ctx, cancel := context.WithCancel(ctx) // the rest of the list is not wanted
	defer cancel()
	var found []*pb.Instance
	page, next, err := s.askInstances(ctx, &pb.ListInstancesRequest{All: all}, probeTimeout)
	for err == nil && page != nil && len(found) <= shownInstances {
		found = append(found, page.GetInstances()...)
		page, err = next()
	}
	return found, err
}

func (s *Server) newestEvents(ctx context.Context, since time.Time) ([]*pb.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.cfg.ControlPlane.WatchEvents(ctx, &pb.WatchEventsRequest{Since: timestamppb.New(since)})
	if err != nil {
		return nil, err
	}
	var newest []*pb.Event
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return newest, nil
		}
		if err != nil {
			return nil, err
		}
		newest = append(newest, resp.GetEvents()...)
		newest = newest[max(0, len(newest)-shownEvents):]
	}
}

func serveStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write(style)
}

// counts puts statuses in the order of an instance's life; unknown ones last.
func counts(byStatus map[string]uint32) []count {
	life := []string{"starting", "running", "restarting", "stopped", "crashed", "lost"}
	var all []count
	for _, status := range life {
		all = append(all, count{status, byStatus[status]})
	}
	for status, n := range byStatus {
		if !slices.Contains(life, status) {
			all = append(all, count{status, n})
		}
	}
	return all
}

// age words how long ago something was, in its largest unit.
func age(now time.Time, then *time.Time) string {
	if then == nil {
		return "–"
	}
	d := max(now.Sub(*then), 0) // another node's clock may be ahead
	for _, unit := range []struct {
		length time.Duration
		letter string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= unit.length {
			return strconv.Itoa(int(d/unit.length)) + unit.letter
		}
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}
