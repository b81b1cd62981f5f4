package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// The list of instances is a bare array. While a new leader rebuilds its view, these headers say that
	// the list may lack some, and which nodes (their names escaped as in a URL) have not answered.
	recoveringHeader = "X-Wasmatrix-Recovering"
	missingHeader    = "X-Wasmatrix-Missing-Nodes"
)

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.askStatus(r.Context(), callTimeout)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromStatus(status))
}

func (s *Server) members(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.ListMembers(ctx, &pb.ListMembersRequest{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromMembers(resp.GetMembers()))
}

func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	ref := r.PathValue("id")
	if err := text("the reference", ref); err != nil {
		s.fail(w, r, err)
		return
	}
	resp, err := s.cfg.ControlPlane.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: ref})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.met.Store(true)
	writeJSON(w, http.StatusOK, api.FromInstance(resp.GetInstance()))
}

// instances passes the list on as it comes: of 100,000 instances only a page is ever held here.
func (s *Server) instances(w http.ResponseWriter, r *http.Request) {
	req, err := listRequest(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	page, next, err := s.askInstances(ctx, req, callTimeout)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if page.GetRecovering() {
		h.Set(recoveringHeader, "true")
		h.Set(missingHeader, escaped(page.GetMissingNodes()))
	}
	if r.Method == http.MethodHead {
		return
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := writeList(out, page, next); err != nil {
		// Half a list must not look like a whole one: the connection breaks off.
		s.cfg.Log.DebugContext(r.Context(), "a list of instances broke off", "err", err)
		panic(http.ErrAbortHandler)
	}
}

// writeList writes one array, each instance on a line of its own. No page means no more.
func writeList(out *bufio.Writer, page *pb.ListInstancesResponse, next func() (*pb.ListInstancesResponse, error)) error {
	encoder := json.NewEncoder(out) // its errors are out's, which keeps the first for Flush
	_ = out.WriteByte('[')
	for separator := ""; page != nil; {
		for _, i := range page.GetInstances() {
			_, _ = out.WriteString(separator)
			if err := encoder.Encode(api.FromInstance(i)); err != nil {
				return err
			}
			separator = ","
		}
		var err error
		if page, err = next(); err != nil {
			return err
		}
	}
	_, _ = out.WriteString("]\n")
	return out.Flush()
}

func listRequest(query url.Values) (*pb.ListInstancesRequest, error) {
	req := &pb.ListInstancesRequest{Name: query.Get("name"), Node: query.Get("node")}
	if err := errors.Join(text("name", req.GetName()), text("node", req.GetNode())); err != nil {
		return nil, err
	}
	all := query.Get("all")
	if query.Has("all") && all == "" {
		all = "true"
	}
	if all != "" {
		var err error
		if req.All, err = strconv.ParseBool(all); err != nil {
			return nil, rpc.Errorf(rpc.InvalidRequest, "all=%q is neither true nor false", all)
		}
	}
	return req, nil
}

// text refuses what no message can carry.
func text(what, value string) error {
	if !utf8.ValidString(value) {
		return rpc.Errorf(rpc.InvalidRequest, "%s %q is not UTF-8", what, value)
	}
	return nil
}

func escaped(names []string) string {
	all := make([]string, 0, len(names))
	for _, name := range names {
		all = append(all, url.PathEscape(name))
	}
	return strings.Join(all, ", ")
}

// askStatus asks for the cluster's status.
func (s *Server) askStatus(ctx context.Context, timeout time.Duration) (*pb.GetClusterStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
	if err == nil {
		s.met.Store(true)
	}
	return resp, err
}

// askInstances returns the first page, which must come in time, and a function that returns the next,
// or nil after the last. The stream lives as long as ctx.
func (s *Server) askInstances(ctx context.Context, req *pb.ListInstancesRequest, timeout time.Duration) (*pb.ListInstancesResponse, func() (*pb.ListInstancesResponse, error), error) {
	ctx, cancel := context.WithCancel(ctx) // ended by its parent, or by the timer
	late := time.AfterFunc(timeout, cancel)
	stream, err := s.cfg.ControlPlane.ListInstances(ctx, req)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	next := func() (*pb.ListInstancesResponse, error) {
		page, err := stream.Recv()
		if err == nil {
			return page, nil
		}
		cancel()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	page, err := next()
	if !late.Stop() && err != nil {
		err = rpc.Errorf(rpc.Timeout, "the leader did not begin its answer within %s", timeout)
	}
	if err != nil {
		return nil, nil, err
	}
	s.met.Store(true)
	if page == nil {
		page = &pb.ListInstancesResponse{}
	}
	return page, next, nil
}

// writeJSON answers with one object or array, on one line.
func writeJSON(w http.ResponseWriter, status int, shape any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(shape) // it fails only if the caller is gone
}
