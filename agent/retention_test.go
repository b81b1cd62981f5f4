package agent

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestRetentionBoundsAgeRecordsAndLogs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := retention{
			maxAge:     time.Hour,
			maxRecords: rapid.IntRange(1, 10).Draw(t, "records"),
			maxLogs:    rapid.IntRange(1, 10).Draw(t, "logs"),
		}
		now := time.Unix(0, 0)
		all, gone := 0, 0
		outputs := map[string]bool{}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "later")))
			id := fmt.Sprint(all)
			all++
			outputs[id] = true
			if lose, ok := r.add(tombed{id: id, at: now, out: &output{}}); ok {
				delete(outputs, lose.id)
			}
			if rapid.IntRange(0, 3).Draw(t, "sweep") > 0 {
				continue
			}
			for _, e := range r.expired(now) {
				if e.id != fmt.Sprint(gone) {
					t.Fatalf("%s went before %d", e.id, gone)
				}
				gone++
				delete(outputs, e.id)
				tooMany := all-gone >= r.maxRecords && now.Sub(e.at) >= keepAtLeast || all-gone >= hardFactor*r.maxRecords
				if now.Sub(e.at) < r.maxAge && !tooMany {
					t.Fatalf("%s went after %s, the %d th from the end", e.id, now.Sub(e.at), all-gone)
				}
			}
			for n, e := range r.ended {
				if now.Sub(e.at) >= r.maxAge || len(r.ended)-n > r.maxRecords && now.Sub(e.at) >= keepAtLeast {
					t.Fatalf("%s is still there after %s, as one of %d", e.id, now.Sub(e.at), len(r.ended))
				}
			}
		}
		if len(outputs) > r.maxLogs {
			t.Fatalf("%d outputs are kept, want at most %d", len(outputs), r.maxLogs)
		}
		if want := min(r.maxLogs, all-gone); len(outputs) != want {
			t.Fatalf("%d outputs are kept, want %d", len(outputs), want)
		}
	})
}

// TestRevisionCopiesEveryField fails when a field is added to the record and forgotten in revise.
func TestRevisionCopiesEveryField(t *testing.T) {
	rec := &pb.Instance{}
	fields := rec.ProtoReflect().Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch f.Kind() {
		case protoreflect.StringKind:
			rec.ProtoReflect().Set(f, protoreflect.ValueOfString("x"))
		case protoreflect.Uint32Kind:
			rec.ProtoReflect().Set(f, protoreflect.ValueOfUint32(7))
		case protoreflect.Uint64Kind:
			rec.ProtoReflect().Set(f, protoreflect.ValueOfUint64(7))
		case protoreflect.Int32Kind:
			rec.ProtoReflect().Set(f, protoreflect.ValueOfInt32(7))
		case protoreflect.EnumKind:
			rec.ProtoReflect().Set(f, protoreflect.ValueOfEnum(1))
		case protoreflect.MessageKind:
			rec.ProtoReflect().Mutable(f)
		default:
			t.Fatalf("field %s is of a kind that this test does not know", f.FullName())
		}
	}
	got := revise(rec)
	want := proto.CloneOf(rec)
	want.Revision++
	if !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got.Spec != rec.Spec {
		t.Fatal("the spec was copied, not shared")
	}
}

func TestRecordsTellTheStory(t *testing.T) {
	code := int32(3)
	crash := end{began: true, code: &code, why: "exit code 3"}
	rec := running(&pb.Instance{RestartAt: timestamppb.Now(), ExitCode: &code, LastError: "before"}, 2)
	if rec.RestartAt != nil || rec.ExitCode != nil || rec.Restarts != 2 || rec.LastError != "before" {
		t.Fatalf("running: %v", rec)
	}
	waiting := ended(rec, 2, crash, verdict{restart: true, after: time.Second})
	if waiting.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_RESTARTING || waiting.RestartAt == nil || waiting.GetExitCode() != 3 || waiting.GetLastError() != "exit code 3" {
		t.Fatalf("waiting: %v", waiting)
	}
	if rec.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_RUNNING {
		t.Fatal("a published record was changed")
	}
	over := ended(rec, 3, crash, verdict{exhausted: true, retries: 3})
	if over.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_CRASHED || over.GetLastError() != "exit code 3; given up after 3 restarts in a row" {
		t.Fatalf("given up: %v", over)
	}
	halted := stopped(waiting)
	if halted.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_STOPPED || halted.RestartAt != nil || halted.FinishedAt == nil {
		t.Fatalf("stopped: %v", halted)
	}
}

func TestClippedTextIsShortAndUTF8(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "text"))
		got := clip(text)
		if _, err := proto.Marshal(&pb.Instance{LastError: got}); err != nil || len(got) > maxErrorText+len("…") {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
}
