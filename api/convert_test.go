package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// Whatever comes off the wire can be printed, and reads back as what was printed. Only labels,
// arguments and the like may be absent on the wire; in JSON no list or map is null.

func TestAnyInstanceReadsBackAsPrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wire := anyInstance(t)
		shape := FromInstance(wire)
		fields := readsBack(t, shape)

		noNulls(t, fields, "started_at", "created_at", "finished_at", "restart_at", "exit_code")
		isTime(t, "created_at", fields["created_at"], wire.GetCreatedAt())
		isTime(t, "started_at", fields["started_at"], wire.GetStartedAt())
		isTime(t, "finished_at", fields["finished_at"], wire.GetFinishedAt())
		isTime(t, "restart_at", fields["restart_at"], wire.GetRestartAt())
		if code, shown := fields["exit_code"].(float64); shown != (wire.ExitCode != nil) || shown && int32(code) != wire.GetExitCode() {
			t.Fatalf("exit code %v is printed as %v", wire.ExitCode, fields["exit_code"])
		}
		for _, words := range []string{shape.Status, shape.Durability, shape.RestartPolicy.PolicyType} {
			if words != strings.ToLower(words) || strings.Contains(words, "status") || strings.Contains(words, "policy") || strings.Contains(words, "durability") {
				t.Fatalf("%q is no word of the contract", words)
			}
		}
		if got, want := shape.RestartPolicy.BackoffSeconds, wire.GetSpec().GetRestartPolicy().GetBackoff().AsDuration().Seconds(); got != want {
			t.Fatalf("a backoff of %v s is printed as %v", want, got)
		}
		if _, shown := fields["env"]; shown {
			t.Fatal("the environment, where people keep secrets, is printed")
		}
	})
}

func TestAnyMemberReadsBackAsPrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		noNulls(t, readsBack(t, FromMember(&pb.Member{
			NodeId: rapid.String().Draw(t, "node_id"), Name: rapid.String().Draw(t, "name"), GossipAddr: rapid.String().Draw(t, "gossip"),
			Role: rapid.SampledFrom([]string{"leader", "voter", "agent"}).Draw(t, "role"), Instances: rapid.Uint32().Draw(t, "instances"),
			Labels: anyPairs(t, "labels"), CommittedMemoryBytes: rapid.Uint64().Draw(t, "committed"),
		})), "vitals")
	})
}

func TestStatusCountsEachMemberOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.MapOf(rapid.SampledFrom([]string{"alive", "suspect", "draining", "dead", "left"}), rapid.Uint32Max(1e6)).Draw(t, "members")
		shape := FromStatus(&pb.GetClusterStatusResponse{
			ClusterId: rapid.String().Draw(t, "cluster_id"), Term: rapid.Uint64().Draw(t, "term"), Recovering: rapid.Bool().Draw(t, "recovering"),
			MissingNodes: rapid.SliceOf(rapid.String()).Draw(t, "missing"), Voters: rapid.SliceOf(rapid.String()).Draw(t, "voters"), Members: members,
			Instances: rapid.MapOf(rapid.SampledFrom([]string{"running", "stopped"}), rapid.Uint32()).Draw(t, "instances"),
		})
		noNulls(t, readsBack(t, shape))
		var all uint32
		for _, n := range members {
			all += n
		}
		if got := shape.Members.Alive + shape.Members.Dead + shape.Members.Left; got != all {
			t.Fatalf("%v is counted as %+v", members, shape.Members)
		}
	})
}

func TestAnyEventReadsBackAsPrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wire := &pb.Event{
			EventId: rapid.String().Draw(t, "event_id"), Time: anyTime(t, "time"), Type: "instance.started", NodeId: rapid.String().Draw(t, "node_id"),
			InstanceId: rapid.String().Draw(t, "instance_id"), Name: rapid.String().Draw(t, "name"), Details: anyPairs(t, "details"),
		}
		fields := readsBack(t, FromEvent(wire))
		noNulls(t, fields, "time")
		isTime(t, "time", fields["time"], wire.GetTime())
	})
}

func TestAnyOutputCanBePrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SliceOf(rapid.Byte()).Draw(t, "line") // guests write any bytes
		entry := FromLogEntry(&pb.LogEntry{Time: anyTime(t, "time"), Stream: "stdout", Line: line, Seq: rapid.Uint64().Draw(t, "seq")})
		printed, err := json.Marshal(entry)
		if err != nil {
			t.Fatalf("%q cannot be printed: %v", line, err)
		}
		var back LogEntry
		if err := json.Unmarshal(printed, &back); err != nil {
			t.Fatalf("%s cannot be read: %v", printed, err)
		}
		if want := strings.ToValidUTF8(string(line), ""); strings.ReplaceAll(back.Line, "\uFFFD", "") != strings.ReplaceAll(want, "\uFFFD", "") {
			t.Fatalf("%q is printed as %q", line, back.Line)
		}
	})
}

func TestAnyErrorReadsBackAsPrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		err := rpc.Errorf(rpc.InstanceNotFound, "%s", rapid.String().Draw(t, "message"))
		for key, value := range anyPairs(t, "details") {
			err = err.With(key, value)
		}
		noNulls(t, readsBack(t, FromError(err)))
	})
}

// readsBack prints a shape, checks that what is read is the same, and returns the fields as printed.
func readsBack[Shape any](t *rapid.T, shape Shape) map[string]any {
	t.Helper()
	printed, err := json.Marshal(shape)
	if err != nil {
		t.Fatalf("%+v cannot be printed: %v", shape, err)
	}
	var back Shape
	if err := json.Unmarshal(printed, &back); err != nil {
		t.Fatalf("%s cannot be read: %v", printed, err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(printed) {
		t.Fatalf("%s reads back as %s, %v", printed, again, err)
	}
	var fields map[string]any
	if err := json.Unmarshal(printed, &fields); err != nil {
		t.Fatal(err)
	}
	if want := reflect.TypeFor[Shape]().NumField(); len(fields) != want {
		t.Fatalf("%d fields are printed, of %d: %s", len(fields), want, printed)
	}
	return fields
}

func noNulls(t *rapid.T, fields map[string]any, but ...string) {
	t.Helper()
	for name, value := range fields {
		allowed := false
		for _, b := range but {
			allowed = allowed || b == name
		}
		if value == nil && !allowed {
			t.Fatalf("%s is null", name)
		}
	}
}

func isTime(t *rapid.T, name string, printed any, wire *timestamppb.Timestamp) {
	t.Helper()
	if !wire.IsValid() {
		if printed != nil {
			t.Fatalf("%s is %v, and there is none", name, printed)
		}
		return
	}
	text, _ := printed.(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !at.Equal(wire.AsTime()) || !strings.HasSuffix(text, "Z") {
		t.Fatalf("%s, %s, is printed as %v", name, wire.AsTime(), printed)
	}
}

func anyInstance(t *rapid.T) *pb.Instance {
	wire := &pb.Instance{
		InstanceId: rapid.String().Draw(t, "instance_id"), NodeId: rapid.String().Draw(t, "node_id"), NodeName: rapid.String().Draw(t, "node_name"),
		Status:     pb.InstanceStatus(rapid.Int32Range(1, 6).Draw(t, "status")),
		Durability: pb.Durability(rapid.Int32Range(1, 2).Draw(t, "durability")),
		CreatedAt:  anyTime(t, "created_at"), StartedAt: anyTime(t, "started_at"), FinishedAt: anyTime(t, "finished_at"), RestartAt: anyTime(t, "restart_at"),
		Restarts: rapid.Uint32().Draw(t, "restarts"), Generation: rapid.Uint64().Draw(t, "generation"),
		ExitCode: rapid.Ptr(rapid.Int32(), true).Draw(t, "exit_code"), LastError: rapid.String().Draw(t, "last_error"),
		Spec: &pb.InstanceSpec{
			Name: rapid.String().Draw(t, "name"), ModuleHash: rapid.String().Draw(t, "module_hash"),
			Args: rapid.SliceOf(rapid.String()).Draw(t, "args"), Env: anyPairs(t, "env"), Constraints: anyPairs(t, "constraints"),
			MemoryLimitBytes: rapid.Uint64().Draw(t, "memory"),
			CpuMillicores:    rapid.Uint32().Draw(t, "cpu"), CpuHard: rapid.Bool().Draw(t, "cpu_hard"), Fuel: rapid.Uint64().Draw(t, "fuel"),
			RunTimeout: durationpb.New(time.Duration(rapid.Int64Min(0).Draw(t, "run_timeout"))),
			RestartPolicy: &pb.RestartPolicy{
				PolicyType: pb.PolicyType(rapid.Int32Range(1, 3).Draw(t, "policy")), MaxRetries: rapid.Uint32().Draw(t, "max_retries"),
				Backoff: durationpb.New(time.Duration(rapid.Int64Min(0).Draw(t, "backoff"))),
			},
		},
	}
	return wire
}

// anyTime is none, a time, or what no calendar has.
func anyTime(t *rapid.T, label string) *timestamppb.Timestamp {
	if rapid.Bool().Draw(t, label+" is none") {
		return nil
	}
	return &timestamppb.Timestamp{
		Seconds: rapid.OneOf(rapid.Int64Range(0, 1<<33), rapid.Int64()).Draw(t, label),
		Nanos:   rapid.OneOf(rapid.Int32Range(0, 999_999_999), rapid.Int32()).Draw(t, label+" nanos"),
	}
}

func anyPairs(t *rapid.T, label string) map[string]string {
	if rapid.Bool().Draw(t, label+" are none") {
		return nil
	}
	return rapid.MapOf(rapid.String(), rapid.String()).Draw(t, label)
}
