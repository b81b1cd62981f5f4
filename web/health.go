package web

import (
	"context"
	"io"
	"net/http"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// healthy answers while the process serves.
func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// ready answers 200 when this node knows a leader that has finished recovering.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	resp, err := s.cfg.ControlPlane.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
	switch {
	case err != nil:
		writeError(w, http.StatusServiceUnavailable, err)
	case resp.GetRecovering():
		writeError(w, http.StatusServiceUnavailable, rpc.Errorf(rpc.NoLeader, "the leader %s is still asking the agents what they run", resp.GetLeaderName()))
	default:
		s.healthy(w, r)
	}
}
