package web

import (
	"bytes"
	"context"
	"html/template"
	"net/http"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
)

// page shows the cluster to people. It can be read without a script; without a leader it says so, and shows
// what this node knows.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	q, err := s.see(r.URL)
	if err != nil {
		s.failPage(w, r, http.StatusNotFound, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*probeTimeout)
	defer cancel()
	m := s.hub.look(ctx)
	f := s.frame(q)
	var asking sync.WaitGroup
	if q.view.name == "instance" {
		asking.Go(func() { f.Log = s.recentLog(ctx, q.ref) })
	}
	asking.Go(func() { f.Nodes, _ = m.Members() }) // to choose from; a piece that needs them says why there are none
	m.prepare(q)
	asking.Wait()
	f.Pieces = m.draw(q)
	code := http.StatusOK
	for _, p := range f.Pieces {
		if p.problem != nil {
			code = httpStatus(p.problem)
			break
		}
	}
	if code == http.StatusNotFound {
		f.Log = nil // there is no such instance, and its piece says so
	}
	if status, err := m.Status(); err != nil {
		code = httpStatus(err)
	} else {
		f.Cluster = plain(status.ClusterName)
	}
	s.writePage(w, r, code, f)
}

// prepare asks at once what the pieces of a view will ask for one after the other.
func (m *moment) prepare(q question) {
	var asking sync.WaitGroup
	for _, p := range q.view.pieces {
		asking.Go(func() { _, _ = p.load(m, q) }) // its answer is kept, and so is its error
	}
	asking.Wait()
}

func (s *Server) frame(q question) *frame {
	f := &frame{question: q, Build: build, Node: s.cfg.NodeName, Version: s.cfg.Version, Now: time.Now().UTC()}
	if q.view != nil {
		f.Title = q.view.title
		if q.ref != "" {
			f.Title += " " + plain(q.ref)
		}
	}
	return f
}

// failPage shows a person that there is nothing at an address.
func (s *Server) failPage(w http.ResponseWriter, r *http.Request, code int, err error) {
	q := question{path: r.URL.Path, view: &view{name: "nothing", title: "Nothing here"}}
	f := s.frame(q)
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, "problem", api.FromError(err)); err != nil {
		s.fail(w, r, err)
		return
	}
	f.Pieces = []piece{{Name: "problem", HTML: template.HTML(out.String())}} //nolint:gosec // it is what html/template wrote
	s.writePage(w, r, code, f)
}

func (s *Server) writePage(w http.ResponseWriter, r *http.Request, code int, f *frame) {
	var body bytes.Buffer // a page is whole or not at all
	if err := templates.ExecuteTemplate(&body, "frame", f); err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if code == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// asset serves a file of the page. Its address has the build in it, so that it may be kept for ever.
func asset(name, kind string) http.HandlerFunc {
	content, err := files.ReadFile("page/" + name)
	if err != nil {
		panic(err) // it is in the binary
	}
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		if r.URL.RawQuery == build {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		_, _ = w.Write(content)
	}
}
