package web

import (
	"encoding/json"
	"net/http"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// httpStatus gives each error code of the contract its HTTP status.
var httpStatus = map[rpc.Code]int{
	rpc.InvalidRequest:       http.StatusBadRequest,
	rpc.InstanceNotFound:     http.StatusNotFound,
	rpc.ModuleNotFound:       http.StatusNotFound,
	rpc.NodeNotFound:         http.StatusNotFound,
	rpc.CapabilityNotFound:   http.StatusNotFound,
	rpc.PermissionDenied:     http.StatusForbidden,
	rpc.Unauthenticated:      http.StatusUnauthorized,
	rpc.ResourceExhausted:    http.StatusTooManyRequests,
	rpc.ProviderUnavailable:  http.StatusServiceUnavailable,
	rpc.CommunicationFailure: http.StatusBadGateway,
	rpc.NoLeader:             http.StatusServiceUnavailable,
	rpc.StaleLeader:          http.StatusServiceUnavailable,
	rpc.Timeout:              http.StatusGatewayTimeout,
	rpc.Internal:             http.StatusInternalServerError,
}

func invalid(format string, args ...any) error {
	return rpc.Errorf(rpc.InvalidRequest, format, args...)
}

// fail answers with an error at the status of its code.
func fail(w http.ResponseWriter, err error) {
	status, ok := httpStatus[rpc.CodeOf(err)]
	if !ok {
		status = http.StatusInternalServerError
	}
	writeError(w, status, err)
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, api.FromError(err))
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // fails only if the client has gone
}
