package abi

import (
	"fmt"
	"sync"
	"unsafe"
)

// Status is how a call failed. The numbers are those of docs/guest-abi.md.
type Status int32

// Error is why a call came to nothing.
type Error struct {
	Status  Status
	Message string
}

// What an [*Error] can be compared with by errors.Is.
var (
	ErrInvalidRequest   = &Error{-1, "the arguments make no sense"}
	ErrUnknownGrant     = &Error{-2, "this instance has no grant of that capability"}
	ErrPermissionDenied = &Error{-3, "the grant does not allow this"}
	ErrUnavailable      = &Error{-4, "the provider does not serve now"}
	ErrTimeout          = &Error{-5, "no outcome in time"} // a write may have been done
	ErrNotFound         = &Error{-6, "there is no such key"}
	ErrConflict         = &Error{-7, "the key is not at that revision"}
	ErrExhausted        = &Error{-8, "too large, or too many"}
	ErrInternal         = &Error{-9, "a fault on the other side"}
)

func (e *Error) Error() string { return e.Message }

// Is says whether target is an [*Error] of the same status.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error) // errors.Is has unwrapped already
	return ok && t.Status == e.Status
}

// Timeout says whether time ran out, as net.Error has it.
func (e *Error) Timeout() bool { return e.Status == ErrTimeout.Status }

// Calling is held from a call to the reading of its result: the next call replaces that, and goroutines may be switched
// in between.
var Calling sync.Mutex

// Called makes an error of what a call returned, if it is one.
func Called(value int32) (int32, error) {
	if value >= 0 {
		return value, nil
	}
	message := string(Result())
	if message == "" {
		message = fmt.Sprintf("status %d", value)
	}
	return 0, &Error{Status: Status(value), Message: message}
}

// Result returns the result of the last call.
func Result() []byte {
	b := make([]byte, ResultLen())
	n := ResultRead(unsafe.Pointer(unsafe.SliceData(b)), 0, uint32(len(b))) //nolint:gosec // imports take addresses
	return b[:max(0, n)]
}

// Data is a slice as imports take it.
func Data(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)) //nolint:gosec // imports take addresses
}
