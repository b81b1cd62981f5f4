package web

import (
	"net/http"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// statuses says how each of the contract's error codes reads in HTTP.
var statuses = map[rpc.Code]int{
	rpc.InvalidRequest:       http.StatusBadRequest,
	rpc.InstanceNotFound:     http.StatusNotFound,
	rpc.ModuleNotFound:       http.StatusNotFound,
	rpc.NodeNotFound:         http.StatusNotFound,
	rpc.CapabilityNotFound:   http.StatusNotFound,
	rpc.PermissionDenied:     http.StatusForbidden,
	rpc.Unauthenticated:      http.StatusUnauthorized,
	rpc.ResourceExhausted:    http.StatusTooManyRequests,
	rpc.ProviderUnavailable:  http.StatusServiceUnavailable,
	rpc.CommunicationFailure: http.StatusServiceUnavailable,
	rpc.NoLeader:             http.StatusServiceUnavailable,
	rpc.StaleLeader:          http.StatusServiceUnavailable,
	rpc.Timeout:              http.StatusGatewayTimeout,
	rpc.Internal:             http.StatusInternalServerError,
}

func httpStatus(err error) int {
	if status, ok := statuses[rpc.CodeOf(err)]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// explain words an error of the control plane. While the node has not known a leader, whatever keeps it
// from answering is that it starts.
func (s *Server) explain(err error) error {
	if !s.met.Load() && (rpc.Retryable(err) || rpc.CodeOf(err) == rpc.Timeout) {
		return rpc.Errorf(rpc.NoLeader, "node %q is starting, and knows no leader yet (%s)", s.cfg.NodeName, rpc.FromError(err).Message).
			With("state", "starting")
	}
	return err
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	err = s.explain(err)
	status := httpStatus(err)
	if status == http.StatusInternalServerError {
		s.cfg.Log.WarnContext(r.Context(), "http request was not answered", "path", r.URL.Path, "err", err)
	}
	tracing.Fail(r.Context(), string(rpc.CodeOf(err)), err.Error())
	refuse(w, status, err)
}

// refuse answers with an error and a status that the error's code alone would not give.
func refuse(w http.ResponseWriter, status int, err error) {
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	e := rpc.FromError(err)
	if id := w.Header().Get(tracing.CorrelationHeader); id != "" && e.Details[tracing.CorrelationKey] == "" {
		e = e.With(tracing.CorrelationKey, id)
	}
	writeJSON(w, status, api.FromError(e))
}
