package capability

import (
	"context"
	"errors"
	"fmt"
)

// Status is how a call ended, as the guest sees it. The numbers are part of the guest ABI
// (docs/guest-abi.md) and never change.
type Status int32

// The statuses.
const (
	OK               Status = 0
	InvalidRequest   Status = -1  // the guest's arguments make no sense
	UnknownGrant     Status = -2  // the instance has no grant of that capability, or there is no such provider
	PermissionDenied Status = -3  // its grant does not allow this
	Unavailable      Status = -4  // the provider does not serve now
	Timeout          Status = -5  // no outcome in time; of a write it is not known whether it was done
	NotFound         Status = -6  // there is no such key, or no response to read
	Conflict         Status = -7  // the key is not at the revision that was asked for
	Exhausted        Status = -8  // too large, or too many
	Internal         Status = -9  // a bug or a broken disk on our side
	Interrupted      Status = -10 // the instance is being ended
)

// names are the statuses in the contract's words, where it has one.
var names = map[Status]string{
	OK: "OK", InvalidRequest: "INVALID_REQUEST", UnknownGrant: "CAPABILITY_NOT_FOUND", PermissionDenied: "PERMISSION_DENIED",
	Unavailable: "PROVIDER_UNAVAILABLE", Timeout: "TIMEOUT", NotFound: "NOT_FOUND", Conflict: "CONFLICT",
	Exhausted: "RESOURCE_EXHAUSTED", Internal: "INTERNAL_ERROR", Interrupted: "INTERRUPTED",
}

// String returns the contract's word.
func (s Status) String() string {
	if name, ok := names[s]; ok {
		return name
	}
	return fmt.Sprintf("STATUS_%d", int32(s))
}

// StatusOf returns the status that a word stands for; false for one that is unknown.
func StatusOf(name string) (Status, bool) {
	for s, n := range names {
		if n == name {
			return s, true
		}
	}
	return Internal, false
}

// Error is why a call came to nothing.
type Error struct {
	Status  Status
	Message string // for whoever wrote the guest, and for who granted
	cause   error
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.cause }

// Errorf returns an error of that status. A %w in the format keeps the cause.
func Errorf(s Status, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Status: s, Message: err.Error(), cause: errors.Unwrap(err)}
}

// FromError returns err as an [*Error]: the one that is in it, or what an end of its context means, or else
// an internal one. nil stays nil.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: Timeout, Message: "no answer in time: " + err.Error(), cause: err}
	case errors.Is(err, context.Canceled):
		return &Error{Status: Interrupted, Message: "given up: " + err.Error(), cause: err}
	}
	return &Error{Status: Internal, Message: err.Error(), cause: err}
}
