package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Code is one of the contract's error codes.
type Code string

// The codes, as users and scripts see them.
const (
	InvalidRequest       Code = "INVALID_REQUEST"
	InstanceNotFound     Code = "INSTANCE_NOT_FOUND"
	ModuleNotFound       Code = "MODULE_NOT_FOUND"
	NodeNotFound         Code = "NODE_NOT_FOUND"
	CapabilityNotFound   Code = "CAPABILITY_NOT_FOUND"
	PermissionDenied     Code = "PERMISSION_DENIED"
	Unauthenticated      Code = "UNAUTHENTICATED"
	ResourceExhausted    Code = "RESOURCE_EXHAUSTED"
	ProviderUnavailable  Code = "PROVIDER_UNAVAILABLE"
	CommunicationFailure Code = "COMMUNICATION_FAILURE"
	NoLeader             Code = "NO_LEADER"
	StaleLeader          Code = "STALE_LEADER"
	Timeout              Code = "TIMEOUT"
	Internal             Code = "INTERNAL_ERROR"
)

// table ties the contract's codes to gRPC's. Our code travels as the gRPC code of its first row; a
// plain status, which gRPC itself or a stranger made, reads as our code of its first row.
var table = []struct {
	ours Code
	grpc codes.Code
}{
	{InvalidRequest, codes.InvalidArgument},
	{InvalidRequest, codes.Unimplemented}, // another version's server, see plainMessage
	{InvalidRequest, codes.FailedPrecondition},
	{InvalidRequest, codes.OutOfRange},
	{InvalidRequest, codes.AlreadyExists},
	{InvalidRequest, codes.NotFound}, // says not what was not found; ours always do
	{InstanceNotFound, codes.NotFound},
	{ModuleNotFound, codes.NotFound},
	{NodeNotFound, codes.NotFound},
	{CapabilityNotFound, codes.NotFound},
	{PermissionDenied, codes.PermissionDenied},
	{Unauthenticated, codes.Unauthenticated},
	{ResourceExhausted, codes.ResourceExhausted},
	{CommunicationFailure, codes.Unavailable},
	{CommunicationFailure, codes.Canceled}, // whoever served it gave up, for instance at its exit
	{NoLeader, codes.Unavailable},
	{ProviderUnavailable, codes.Unavailable},
	{StaleLeader, codes.Aborted}, // gRPC: "retry at a higher level"
	{Timeout, codes.DeadlineExceeded},
	{Internal, codes.Internal},
	{Internal, codes.Unknown},
	{Internal, codes.DataLoss},
}

// causes gives errors that are no status their code. The first that matches decides.
var causes = []struct {
	err  error
	ours Code
	says string // before the error's own words
}{
	{context.DeadlineExceeded, Timeout, inTime},
	{context.Canceled, CommunicationFailure, givenUp},
	{net.ErrClosed, CommunicationFailure, ""},
	{raft.ErrNotLeader, NoLeader, ""},
	{raft.ErrLeadershipLost, NoLeader, ""},
	{raft.ErrLeadershipTransferInProgress, NoLeader, ""},
	{raft.ErrRaftShutdown, NoLeader, ""},
	{raft.ErrEnqueueTimeout, Timeout, ""},
}

const (
	// errorDomain marks an ErrorInfo as ours.
	errorDomain = "wasmatrix"
	// timestampKey is kept for Error.Time among the metadata of an ErrorInfo.
	timestampKey = "timestamp"

	inTime  = "no answer in time: "
	givenUp = "given up before it was answered: "
)

// Error is a failure that a user may see.
//
// It is not changed after it was made; With returns a copy.
type Error struct {
	Code    Code
	Message string
	// Details are for programs; "timestamp" is taken by Time.
	Details map[string]string
	// Time is when it happened, by the clock of the node where it did.
	Time time.Time

	cause error
}

var _ error = (*Error)(nil)

// Errorf makes an error of the given code. Its message is formatted like that of fmt.Errorf, %w included.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Time: time.Now(), cause: err}
}

// Error returns the message, without the code.
func (e *Error) Error() string { return e.Message }

// Unwrap returns what the error was made from, or nil.
func (e *Error) Unwrap() error { return e.cause }

// With returns a copy of e with one more detail.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Details = maps.Clone(e.Details)
	if c.Details == nil {
		c.Details = make(map[string]string, 1)
	}
	c.Details[key] = value
	return &c
}

// GRPCStatus returns the error as it travels. Text that is not UTF-8, such as a guest's, is made so:
// gRPC would drop the details otherwise.
func (e *Error) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{
		Reason:   strings.ToValidUTF8(string(e.Code), "\uFFFD"),
		Domain:   errorDomain,
		Metadata: make(map[string]string, len(e.Details)+1),
	}
	for k, v := range e.Details {
		info.Metadata[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
	}
	delete(info.Metadata, timestampKey)
	if !e.Time.IsZero() {
		info.Metadata[timestampKey] = e.Time.UTC().Format(time.RFC3339Nano)
	}
	s := status.New(e.Code.grpc(), strings.ToValidUTF8(e.Message, "\uFFFD"))
	if detailed, err := s.WithDetails(info); err == nil {
		return detailed
	}
	return s
}

// FromError gives any error a code: ours, from this process or off the wire, keep theirs; plain
// statuses and well-known errors get the fitting one; the rest is INTERNAL_ERROR. An error that wraps
// one of ours keeps the outer message. FromError(nil) is nil; mind that a nil *Error in an error is not.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if e == nil {
			return Errorf(Internal, "a nil *rpc.Error was returned as an error")
		}
		if error(e) == err { //nolint:errorlint // is it the error itself, not: does it wrap it
			return e
		}
		outer := *e
		outer.Message, outer.cause = err.Error(), err
		return &outer
	}
	if inner, ok := errors.AsType[grpcStatus](err); ok {
		if s := inner.GRPCStatus(); s != nil && s.Code() != codes.OK {
			e := fromStatus(s)
			// Wrapped, it would read "agent b3: rpc error: code = Unavailable desc = ...".
			e.Message = strings.Replace(err.Error(), inner.Error(), e.Message, 1)
			e.cause = err
			return e
		}
	}
	return fromCause(err)
}

// grpcStatus is an error that is a gRPC status.
type grpcStatus interface {
	error
	GRPCStatus() *status.Status
}

// CodeOf returns the code that FromError gives err, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return FromError(err).Code
}

// Retryable says whether the same call may succeed a little later without anybody changing anything.
func Retryable(err error) bool {
	switch CodeOf(err) {
	case NoLeader, StaleLeader, CommunicationFailure:
		return true
	default:
		return false
	}
}

func (c Code) grpc() codes.Code {
	for _, row := range table {
		if row.ours == c {
			return row.grpc
		}
	}
	return codes.Unknown
}

func (c Code) known() bool { return c.grpc() != codes.Unknown }

func plainCode(c codes.Code) Code {
	for _, row := range table {
		if row.grpc == c {
			return row.ours
		}
	}
	return Internal
}

func fromCause(err error) *Error {
	e := &Error{Code: Internal, Message: err.Error(), Time: time.Now(), cause: err}
	// Before the table: a dial that timed out is also a context.DeadlineExceeded.
	if _, ok := errors.AsType[*net.OpError](err); ok {
		e.Code = CommunicationFailure
		return e
	}
	for _, row := range causes {
		if errors.Is(err, row.err) {
			e.Code = row.ours
			e.Message = row.says + e.Message
			return e
		}
	}
	// What the operating system says of a file reads as a net.Error too, and is none.
	_, file := errors.AsType[*fs.PathError](err)
	if _, ok := errors.AsType[net.Error](err); ok && !file {
		e.Code = CommunicationFailure
	}
	return e
}

// errorInfo returns what makes a status one of ours, or nil.
func errorInfo(s *status.Status) *errdetails.ErrorInfo {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info
		}
	}
	return nil
}

func fromStatus(s *status.Status) *Error {
	e := &Error{Code: plainCode(s.Code()), Message: s.Message(), Time: time.Now()}
	info := errorInfo(s)
	if info == nil {
		e.Message = plainMessage(s)
		return e
	}
	e.Details = maps.Clone(info.GetMetadata())
	if stamp, ok := e.Details[timestampKey]; ok {
		delete(e.Details, timestampKey)
		if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			e.Time = t
		}
	}
	if c := Code(info.GetReason()); c.known() {
		e.Code = c
		return e
	}
	// A newer server's code; the status still says roughly what it is.
	return e.With("reason", info.GetReason())
}

// plainMessage words a status that gRPC itself made for people.
func plainMessage(s *status.Status) string {
	msg := s.Message()
	switch s.Code() {
	case codes.Unimplemented:
		return fmt.Sprintf("the node does not know this request (%s); it may run another version: compare `wasmatrix version` with `wasmatrix members`", msg)
	case codes.Unavailable:
		// connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:7401: connect: connection refused"
		if _, dial, ok := strings.Cut(msg, "Error while dialing: "); ok {
			return "the node cannot be reached: " + strings.TrimSuffix(dial, `"`)
		}
		return "the connection to the node broke: " + msg
	case codes.DeadlineExceeded:
		return inTime + msg
	case codes.Canceled:
		return givenUp + msg
	default:
		if msg == "" {
			return "the node answered " + s.Code().String() + " and nothing else"
		}
		return msg
	}
}
