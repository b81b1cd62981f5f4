package wasmatrix

import "github.com/wasmatrix/wasmatrix/sdk/go/internal/abi"

// Status is how a call failed. The numbers are those of docs/guest-abi.md.
type Status = abi.Status

// Error is why a call came to nothing: a status, which errors.Is compares, and a message.
type Error = abi.Error

// What an [*Error] can be compared with by errors.Is.
var (
	ErrInvalidRequest   = abi.ErrInvalidRequest   // the arguments make no sense
	ErrUnknownGrant     = abi.ErrUnknownGrant     // this instance has no grant of that capability
	ErrPermissionDenied = abi.ErrPermissionDenied // its grant does not allow this
	ErrUnavailable      = abi.ErrUnavailable      // the provider does not serve now
	ErrTimeout          = abi.ErrTimeout          // no outcome in time; a write may have been done
	ErrNotFound         = abi.ErrNotFound         // there is no such key
	ErrConflict         = abi.ErrConflict         // the key is not at that revision
	ErrExhausted        = abi.ErrExhausted        // too large, or too many
	ErrInternal         = abi.ErrInternal         // a fault on the other side
)
