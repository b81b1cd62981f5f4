package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/raft"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// contract is CONTRACT section 1's list of error codes, and how each travels.
var contract = map[Code]codes.Code{
	"INVALID_REQUEST":       codes.InvalidArgument,
	"INSTANCE_NOT_FOUND":    codes.NotFound,
	"MODULE_NOT_FOUND":      codes.NotFound,
	"NODE_NOT_FOUND":        codes.NotFound,
	"CAPABILITY_NOT_FOUND":  codes.NotFound,
	"PERMISSION_DENIED":     codes.PermissionDenied,
	"UNAUTHENTICATED":       codes.Unauthenticated,
	"RESOURCE_EXHAUSTED":    codes.ResourceExhausted,
	"PROVIDER_UNAVAILABLE":  codes.Unavailable,
	"COMMUNICATION_FAILURE": codes.Unavailable,
	"NO_LEADER":             codes.Unavailable,
	"STALE_LEADER":          codes.Aborted,
	"TIMEOUT":               codes.DeadlineExceeded,
	"INTERNAL_ERROR":        codes.Internal,
}

func anyCode() *rapid.Generator[Code] {
	all := make([]Code, 0, len(contract))
	for _, row := range table {
		if !strings.Contains(fmt.Sprint(all), string(row.ours)) {
			all = append(all, row.ours)
		}
	}
	return rapid.SampledFrom(all)
}

// overTheWire is what a client makes of a server's error.
func overTheWire(t interface{ Fatal(...any) }, s *status.Status) error {
	b, err := proto.Marshal(s.Proto())
	if err != nil {
		t.Fatal(err)
	}
	var p spb.Status
	if err := proto.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return status.FromProto(&p).Err()
}

func TestTableHasEveryCodeOfTheContract(t *testing.T) {
	seen := map[Code]bool{}
	for _, row := range table {
		seen[row.ours] = true
	}
	for code, want := range contract {
		if !seen[code] {
			t.Errorf("%s is not in the table", code)
		}
		if got := code.grpc(); got != want {
			t.Errorf("%s travels as %s, want %s", code, got, want)
		}
	}
	if len(seen) != len(contract) {
		t.Errorf("the table has %d codes, the contract %d", len(seen), len(contract))
	}
}

func TestErrorIsTheSameAfterTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &Error{
			Code:    anyCode().Draw(t, "code"),
			Message: rapid.String().Draw(t, "message"),
			Details: rapid.MapOf(rapid.StringMatching(`[a-z_]{1,12}`).Filter(func(k string) bool { return k != timestampKey }), rapid.String()).Draw(t, "details"),
			Time:    time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")),
		}
		got := FromError(overTheWire(t, want.GRPCStatus()))
		if got.Code != want.Code || got.Message != want.Message || !got.Time.Equal(want.Time) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if len(got.Details)+len(want.Details) > 0 && !maps.Equal(got.Details, want.Details) {
			t.Fatalf("details: got %q, want %q", got.Details, want.Details)
		}
		again := FromError(overTheWire(t, got.GRPCStatus()))
		if again.Code != got.Code || again.Message != got.Message || !maps.Equal(again.Details, got.Details) || !again.Time.Equal(got.Time) {
			t.Fatalf("a second hop changed it: got %+v, want %+v", again, got)
		}
	})
}

func TestErrorWithGuestsBytesKeepsItsCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := anyCode().Draw(t, "code")
		raw := string(rapid.SliceOf(rapid.Byte()).Draw(t, "raw"))
		got := FromError(overTheWire(t, Errorf(code, "%s", raw).With("trap", raw).With(raw, "x").GRPCStatus()))
		if got.Code != code || !utf8.ValidString(got.Message) {
			t.Fatalf("got %+v, want %s", got, code)
		}
	})
}

func TestPlainStatusReadsAsTheFittingCode(t *testing.T) {
	for c, want := range map[codes.Code]Code{
		codes.Canceled: CommunicationFailure, codes.Unknown: Internal, codes.InvalidArgument: InvalidRequest,
		codes.DeadlineExceeded: Timeout, codes.NotFound: InvalidRequest, codes.AlreadyExists: InvalidRequest,
		codes.PermissionDenied: PermissionDenied, codes.ResourceExhausted: ResourceExhausted,
		codes.FailedPrecondition: InvalidRequest, codes.Aborted: StaleLeader, codes.OutOfRange: InvalidRequest,
		codes.Unimplemented: InvalidRequest, codes.Internal: Internal, codes.Unavailable: CommunicationFailure,
		codes.DataLoss: Internal, codes.Unauthenticated: Unauthenticated, codes.Code(99): Internal,
	} {
		for _, msg := range []string{"", "words"} {
			got := FromError(status.Error(c, msg))
			if got.Code != want || got.Message == "" || !strings.Contains(got.Message, msg) {
				t.Errorf("%s %q: got %s %q, want %s", c, msg, got.Code, got.Message, want)
			}
		}
	}
}

func TestUnknownMethodHintsAtVersions(t *testing.T) {
	got := FromError(status.Error(codes.Unimplemented, "unknown method Fly"))
	if got.Code != InvalidRequest || !strings.Contains(got.Message, "another version") || !strings.Contains(got.Message, "Fly") {
		t.Errorf("got %s %q", got.Code, got.Message)
	}
}

func TestWellKnownErrorsGetACode(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	_, refused := net.Dial("tcp", ln.Addr().String())
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, dialTimeout := (&net.Dialer{}).DialContext(expired, "tcp", ln.Addr().String())

	for _, test := range []struct {
		err  error
		want Code
		says string
	}{
		{context.DeadlineExceeded, Timeout, "no answer in time: context deadline exceeded"},
		{fmt.Errorf("fetch: %w", context.Canceled), CommunicationFailure, "given up before it was answered: fetch: context canceled"},
		{refused, CommunicationFailure, "connection refused"},
		{fmt.Errorf("agent b3: %w", dialTimeout), CommunicationFailure, "agent b3: dial tcp"},
		{net.ErrClosed, CommunicationFailure, "closed"},
		{fmt.Errorf("apply: %w", raft.ErrNotLeader), NoLeader, "apply: "},
		{raft.ErrEnqueueTimeout, Timeout, ""},
		{errors.New("disk on fire"), Internal, "disk on fire"},
		{fmt.Errorf("agent b3: %w", status.Error(codes.Unavailable, "gone")), CommunicationFailure, "agent b3: the connection to the node broke: gone"},
		{fmt.Errorf("agent b3: %w", Errorf(NodeNotFound, "no node %q", "x")), NodeNotFound, `agent b3: no node "x"`},
		{fmt.Errorf("agent b3: %w", Errorf(StaleLeader, "old").GRPCStatus().Err()), StaleLeader, "agent b3: old"},
	} {
		got := FromError(test.err)
		if got.Code != test.want || !strings.Contains(got.Message, test.says) {
			t.Errorf("%v: got %s %q, want %s %q", test.err, got.Code, got.Message, test.want, test.says)
		}
		if strings.Contains(got.Message, "rpc error") {
			t.Errorf("%v: %q speaks gRPC to the user", test.err, got.Message)
		}
		if !errors.Is(got, test.err) {
			t.Errorf("%v is lost as the cause", test.err)
		}
	}
	if got := CodeOf((*Error)(nil)); got != Internal {
		t.Errorf("a nil *Error in an error: got %s", got)
	}
	if FromError(nil) != nil || CodeOf(nil) != "" {
		t.Error("no error has a code")
	}
}

func TestWrappedErrorKeepsDetails(t *testing.T) {
	inner := Errorf(ResourceExhausted, "full").With("node", "b3")
	got := FromError(fmt.Errorf("place: %w", inner))
	if got.Details["node"] != "b3" || !got.Time.Equal(inner.Time) || inner.Message != "full" {
		t.Errorf("got %+v from %+v", got, inner)
	}
}

func TestWithLeavesTheOriginalAlone(t *testing.T) {
	base := Errorf(Internal, "x").With("a", "1")
	_ = base.With("b", "2")
	if len(base.Details) != 1 {
		t.Errorf("got %v", base.Details)
	}
}

func TestNewerServersCodeIsReadByItsStatus(t *testing.T) {
	s := (&Error{Code: "QUOTA_MOON", Message: "m"}).GRPCStatus()
	got := FromError(overTheWire(t, s))
	if got.Code != Internal || got.Details["reason"] != "QUOTA_MOON" {
		t.Errorf("got %+v", got)
	}
}

func FuzzFromError(f *testing.F) {
	for code := range contract {
		b, err := proto.Marshal(Errorf(code, "m").With("k", "v").GRPCStatus().Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{8, 14})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p spb.Status
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		err := status.FromProto(&p).Err()
		got := FromError(err)
		if err == nil {
			if got != nil {
				t.Fatalf("OK became %+v", got)
			}
			return
		}
		if _, ok := contract[got.Code]; !ok {
			t.Fatalf("%q is no code of the contract", got.Code)
		}
		if again := FromError(overTheWire(t, got.GRPCStatus())); again.Code != got.Code {
			t.Fatalf("a second hop made %s of %s", again.Code, got.Code)
		}
	})
}

func TestTroubleWithAFileIsNotTakenForTroubleWithAPeer(t *testing.T) {
	_, err := os.ReadFile(filepath.Join(t.TempDir(), "missing"))
	if got := CodeOf(fmt.Errorf("read: %w", err)); got != Internal {
		t.Fatalf("got %s, want %s", got, Internal)
	}
}
