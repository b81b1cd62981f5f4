package api

import (
	"time"

	"github.com/wasmatrix/wasmatrix/rpc"
)

// Error is a failure, as users and scripts see it.
type Error struct {
	ErrorCode string            `json:"error_code"`
	Message   string            `json:"message"`
	Details   map[string]string `json:"details"`
	Timestamp time.Time         `json:"timestamp"`
}

// FromError returns the JSON shape of any error but nil.
func FromError(err error) Error {
	e := rpc.FromError(err)
	return Error{ErrorCode: string(e.Code), Message: e.Message, Details: notNil(e.Details), Timestamp: e.Time.UTC()}
}
