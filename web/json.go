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

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// The list of instances is a bare array. While a new leader rebuilds its view, these headers say that
	// the list may lack some, and which nodes (their names escaped as in a URL) have not answered.
	recoveringHeader = "X-Wasmatrix-Recovering"
	missingHeader    = "X-Wasmatrix-Missing-Nodes"
	// totalHeader says how many instances there are on all pages.
	totalHeader = "X-Wasmatrix-Total"
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

func (s *Server) providers(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	resp, err := s.cfg.Providers.ListProviders(ctx, &pb.ListProvidersRequest{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromProviders(resp.GetProviders()))
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.GetHistory(ctx, &pb.GetHistoryRequest{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, api.FromHistory(resp))
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

// instances passes the list on as it comes: of 100,000 instances only a part is ever held here.
func (s *Server) instances(w http.ResponseWriter, r *http.Request) {
	req, paged, err := listRequest(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	page, next, err := s.askInstances(ctx, req, callTimeout)
	if err == nil && paged && page.Total == nil { // a leader of a version that knows no pages sends all
		page, next, err = s.askPage(ctx, req, callTimeout)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if page.Total != nil {
		h.Set(totalHeader, strconv.FormatUint(uint64(page.GetTotal()), 10))
	}
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

// askPage is askInstances where the leader sends all: the page is made here.
func (s *Server) askPage(ctx context.Context, req *pb.ListInstancesRequest, timeout time.Duration) (*pb.ListInstancesResponse, func() (*pb.ListInstancesResponse, error), error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := s.cfg.ControlPlane.ListInstances(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	list, err := api.ReadList(req, stream)
	if err != nil {
		return nil, nil, err
	}
	s.met.Store(true)
	whole := &pb.ListInstancesResponse{
		Instances: list.Instances, Recovering: list.Recovering, MissingNodes: list.Missing, Total: proto.Uint32(uint32(list.Total)),
	}
	return whole, func() (*pb.ListInstancesResponse, error) { return nil, nil }, nil
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

// listRequest reads which instances are wanted, and says whether it is a page of them.
func listRequest(query url.Values) (req *pb.ListInstancesRequest, paged bool, err error) {
	req = &pb.ListInstancesRequest{Name: query.Get("name"), Node: query.Get("node"), Filter: query.Get("q")}
	if err := errors.Join(text("name", req.GetName()), text("node", req.GetNode()), text("q", req.GetFilter())); err != nil {
		return nil, false, err
	}
	if req.All, err = flagOf(query, "all"); err != nil {
		return nil, false, err
	}
	for _, word := range query["status"] {
		status, ok := api.StatusNamed(word)
		if !ok {
			return nil, false, rpc.Errorf(rpc.InvalidRequest, "status=%q is none of %s", word, strings.Join(api.Statuses(), ", "))
		}
		req.Statuses = append(req.Statuses, status)
	}
	if req.Sort, req.Descending, err = sortOf(query.Get("sort")); err != nil {
		return nil, false, err
	}
	for name, into := range map[string]*uint32{"limit": &req.Limit, "offset": &req.Offset} {
		if value := query.Get(name); value != "" {
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return nil, false, rpc.Errorf(rpc.InvalidRequest, "%s=%q is no number of instances", name, value)
			}
			*into = uint32(n)
		}
	}
	paged = req.GetFilter() != "" || len(req.GetStatuses()) > 0 || query.Get("sort") != "" || req.GetLimit() > 0 || req.GetOffset() > 0
	return req, paged, nil
}

// sortOf reads what a list is ordered by: a word, with a - before it for the other way round.
func sortOf(value string) (by pb.InstanceSort, descending bool, err error) {
	if value == "" {
		return by, false, nil
	}
	name, descending := strings.CutPrefix(value, "-")
	by, ok := api.SortNamed(name)
	if !ok {
		return by, false, rpc.Errorf(rpc.InvalidRequest, "sort=%q is none of %s, with a - before it for the other way round", value, strings.Join(api.Sorts(), ", "))
	}
	return by, descending, nil
}

// flagOf reads what is true or false; one without a value is true.
func flagOf(query url.Values, name string) (bool, error) {
	value := query.Get(name)
	if !query.Has(name) || value == "" {
		return query.Has(name), nil
	}
	set, err := strconv.ParseBool(value)
	if err != nil {
		return false, rpc.Errorf(rpc.InvalidRequest, "%s=%q is neither true nor false", name, value)
	}
	return set, nil
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
