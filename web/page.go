package web

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

//go:embed page.html page.css
var assets embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"ago": func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return time.Since(*t).Round(time.Second).String()
	},
}).ParseFS(assets, "page.html"))

const (
	shownInstances = 500
	shownEvents    = 30
)

// pageData is what the page shows. Problem is set where the cluster could not be asked.
type pageData struct {
	Node, Version string
	Problem       string
	Status        api.Status
	Members       []api.Member
	Instances     []api.Instance
	More          bool // there are more instances than are shown
	Events        []api.Event
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	data := pageData{Node: s.cfg.NodeName, Version: s.cfg.Version}
	code := http.StatusOK
	if err := s.gather(ctx, &data); err != nil {
		data.Problem, code = api.FromError(err).Message, http.StatusServiceUnavailable
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, data); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = out.WriteTo(w)
}

func (s *Server) gather(ctx context.Context, d *pageData) error {
	members, err := s.cfg.ControlPlane.ListMembers(ctx, &pb.ListMembersRequest{})
	if err != nil {
		return err
	}
	d.Members = api.FromMembers(members.GetMembers())
	status, err := s.cfg.ControlPlane.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
	if err != nil {
		return err
	}
	d.Status = api.FromStatus(status)
	if d.Instances, d.More, err = s.someInstances(ctx); err != nil {
		return err
	}
	d.Events, err = s.newestEvents(ctx)
	return err
}

func (s *Server) someInstances(ctx context.Context) (shown []api.Instance, more bool, err error) {
	ctx, cancel := context.WithCancel(ctx) // the rest of the list is not wanted
	defer cancel()
	pages, err := s.cfg.ControlPlane.ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		return nil, false, err
	}
	page, err := pages.Recv()
	if err != nil {
		return nil, false, err
	}
	all := page.GetInstances()
	return api.FromInstances(all[:min(shownInstances, len(all))]), len(all) > shownInstances, nil
}

func (s *Server) newestEvents(ctx context.Context) ([]api.Event, error) {
	stream, err := s.cfg.ControlPlane.WatchEvents(ctx, &pb.WatchEventsRequest{})
	if err != nil {
		return nil, err
	}
	var newest []*pb.Event
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		newest = append(newest, resp.GetEvents()...)
		newest = newest[max(0, len(newest)-shownEvents):]
	}
	var shown []api.Event
	for _, e := range slices.Backward(newest) {
		shown = append(shown, api.FromEvent(e))
	}
	return shown, nil
}

func (s *Server) style(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, assets, "page.css")
}
