package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromStatus(resp))
}

func (s *Server) members(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.ListMembers(ctx, &pb.ListMembersRequest{})
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromMembers(resp.GetMembers()))
}

func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: r.PathValue("ref")})
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromInstance(resp.GetInstance()))
}

// instances writes one array, page by page: 10,000 instances are never in memory as JSON.
func (s *Server) instances(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	all := false
	if given := query.Get("all"); given != "" {
		var err error
		if all, err = strconv.ParseBool(given); err != nil {
			fail(w, invalid("all=%q: want true or false", given))
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	pages, err := s.cfg.ControlPlane.ListInstances(ctx, &pb.ListInstancesRequest{All: all, Name: query.Get("name"), Node: query.Get("node")})
	if err != nil {
		fail(w, err)
		return
	}
	page, err := pages.Recv() // only now can an error still become a status
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Wasmatrix-Recovering", strconv.FormatBool(page.GetRecovering()))
	out := json.NewEncoder(w)
	for between := "["; ; {
		for _, i := range page.GetInstances() {
			if _, err := io.WriteString(w, between); err != nil {
				return
			}
			if err := out.Encode(api.FromInstance(i)); err != nil {
				return
			}
			between = ","
		}
		page, err = pages.Recv()
		if errors.Is(err, io.EOF) {
			if between == "[" {
				_, _ = io.WriteString(w, "[")
			}
			_, _ = io.WriteString(w, "]\n")
			return
		}
		if err != nil { // the array stays open, so that nobody takes it for whole
			s.cfg.Log.Warn("a list of instances was cut short", "err", err)
			return
		}
	}
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, invalid("there is nothing at %s; see / , /v1/status, /v1/members, /v1/instances, /v1/events, /healthz, /readyz, /metrics", r.URL.Path))
}
