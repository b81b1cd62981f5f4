package fact

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// record draws a record from so small a space that ties and conflicts are common.
func record(ids ...string) *rapid.Generator[*pb.Instance] {
	return rapid.Custom(func(t *rapid.T) *pb.Instance {
		return &pb.Instance{
			InstanceId: rapid.SampledFrom(ids).Draw(t, "id"),
			Spec:       &pb.InstanceSpec{Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), MemoryLimitBytes: PageBytes, CpuMillicores: 300},
			NodeId:     rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node"),
			Status:     pb.InstanceStatus(rapid.Int32Range(1, 6).Draw(t, "status")),
			Generation: rapid.Uint64Range(1, 3).Draw(t, "generation"),
			PlacedAt:   &timestamppb.Timestamp{Seconds: rapid.Int64Range(1, 2).Draw(t, "placed"), Nanos: rapid.Int32Range(0, 1).Draw(t, "nanos")},
			Revision:   rapid.Uint64Range(1, 3).Draw(t, "revision"),
			LastError:  rapid.SampledFrom([]string{"", "trap"}).Draw(t, "error"),
		}
	})
}

func TestMergeIsCommutativeAssociativeIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := record("x")
		a, b, c := gen.Draw(t, "a"), gen.Draw(t, "b"), gen.Draw(t, "c")
		if !proto.Equal(Merge(a, b), Merge(b, a)) {
			t.Fatalf("merge depends on order:\n%v\n%v", Merge(a, b), Merge(b, a))
		}
		if l, r := Merge(Merge(a, b), c), Merge(a, Merge(b, c)); !proto.Equal(l, r) {
			t.Fatalf("merge depends on grouping:\n%v\n%v", l, r)
		}
		if !proto.Equal(Merge(a, a), a) {
			t.Fatalf("merge of one record with itself: %v", Merge(a, a))
		}
	})
}

func TestMergeKeepsHighestGenerationThenOlderPlacementThenLowerNode(t *testing.T) {
	at := func(s int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: s} }
	for name, c := range map[string]struct{ win, lose *pb.Instance }{
		"generation": {&pb.Instance{Generation: 2, NodeId: "z", PlacedAt: at(9)}, &pb.Instance{Generation: 1, NodeId: "a", PlacedAt: at(1)}},
		"placement":  {&pb.Instance{Generation: 1, NodeId: "z", PlacedAt: at(1)}, &pb.Instance{Generation: 1, NodeId: "a", PlacedAt: at(2)}},
		"node":       {&pb.Instance{Generation: 1, NodeId: "a", PlacedAt: at(1)}, &pb.Instance{Generation: 1, NodeId: "b", PlacedAt: at(1)}},
		"revision":   {&pb.Instance{Generation: 1, NodeId: "a", PlacedAt: at(1), Revision: 2}, &pb.Instance{Generation: 1, NodeId: "a", PlacedAt: at(1), Revision: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if Merge(c.win, c.lose) != c.win || Merge(c.lose, c.win) != c.win {
				t.Fatalf("want %v to win over %v", c.win, c.lose)
			}
		})
	}
}

func TestMergeKeepsWhatHasStopped(t *testing.T) {
	stopped := &pb.Instance{InstanceId: "i", NodeId: "n2", Generation: 1, Status: pb.InstanceStatus_INSTANCE_STATUS_STOPPED, Revision: 2}
	for _, status := range []pb.InstanceStatus{pb.InstanceStatus_INSTANCE_STATUS_RUNNING, pb.InstanceStatus_INSTANCE_STATUS_RESTARTING, pb.InstanceStatus_INSTANCE_STATUS_LOST} {
		other := &pb.Instance{InstanceId: "i", NodeId: "n1", Generation: 2, Status: status, Revision: 1}
		if Merge(stopped, other) != stopped || Merge(other, stopped) != stopped {
			t.Errorf("a stopped instance is %v again", status)
		}
	}
}

// Whatever order records arrive in, the index ends with the same content, and its maps agree.
func TestIndexIsTheSameForAnyOrderOfArrival(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(record("i1", "i2", "i3", "i4"), 1, 20).Draw(t, "records")
		shuffled := rapid.Permutation(records).Draw(t, "shuffled")
		a, b := NewIndex(), NewIndex()
		for n := range records {
			a.Put(records[n])
			b.Put(shuffled[n])
		}
		for _, i := range a.All() {
			if !proto.Equal(i, b.Get(i.GetInstanceId())) {
				t.Fatalf("order matters:\n%v\n%v", i, b.Get(i.GetInstanceId()))
			}
		}
		if a.Len() != b.Len() {
			t.Fatalf("%d and %d records", a.Len(), b.Len())
		}
		checkIndex(t, a)
		node := rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "gone")
		a.RemoveNode(node)
		if left := a.OnNode(node); len(left) != 0 {
			t.Fatalf("still %d of the node that was removed", len(left))
		}
		checkIndex(t, a)
	})
}

func checkIndex(t *rapid.T, x *Index) {
	byName, byNode, byStatus := 0, 0, 0
	for _, name := range []string{"a", "b"} {
		named := x.Named(name)
		byName += len(named)
		spread := 0
		for _, n := range x.Spread(name) {
			spread += n
		}
		if live := len(liveOnly(named)); spread != live {
			t.Fatalf("%s: spread over nodes adds up to %d, but %d live", name, spread, live)
		}
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		on := x.OnNode(node)
		byNode += len(on)
		if live := len(liveOnly(on)); x.Usage(node) != (Usage{Instances: live, Memory: uint64(live) * PageBytes, CPU: uint64(live) * 300}) {
			t.Fatalf("%s: usage %+v, but %d live", node, x.Usage(node), live)
		}
	}
	for _, n := range x.CountByStatus() {
		byStatus += n
	}
	if byName != x.Len() || byNode != x.Len() || byStatus != x.Len() {
		t.Fatalf("%d records, but %d by name, %d by node, %d by status", x.Len(), byName, byNode, byStatus)
	}
}

func TestRemoveIgnoresAnotherNodesRecord(t *testing.T) {
	x := NewIndex()
	x.Put(&pb.Instance{InstanceId: "i", NodeId: "new", Generation: 2})
	x.Remove("i", "old")
	if x.Get("i") == nil {
		t.Fatal("a node removed a record that is another's by now")
	}
}

func TestReferencesStandForIDsNamesAndPrefixes(t *testing.T) {
	const id1, id2, id3 = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002", "0198ffff-0000-7000-8000-000000000003"
	x := NewIndex()
	running, ended := pb.InstanceStatus_INSTANCE_STATUS_RUNNING, pb.InstanceStatus_INSTANCE_STATUS_STOPPED
	x.Put(&pb.Instance{InstanceId: id1, Spec: &pb.InstanceSpec{Name: "web"}, Status: running})
	x.Put(&pb.Instance{InstanceId: id2, Spec: &pb.InstanceSpec{Name: "web"}, Status: ended})
	x.Put(&pb.Instance{InstanceId: id3, Spec: &pb.InstanceSpec{Name: "job"}, Status: ended})

	for ref, want := range map[string]string{id2: id2, "web": id1, "job": id3, "0198f": id3} {
		i, err := x.Resolve(ref)
		if err != nil || i.GetInstanceId() != want {
			t.Errorf("Resolve(%q) = %v, %v; want %s", ref, i.GetInstanceId(), err, want)
		}
	}
	var ambiguous *AmbiguousError
	if _, err := x.Resolve("0198c0de"); !errors.As(err, &ambiguous) || ambiguous.Count != 2 {
		t.Errorf("Resolve of a shared prefix: %v", err)
	}
	var missing *NotFoundError
	for _, ref := range []string{"", "0", "nobody"} {
		if _, err := x.Resolve(ref); !errors.As(err, &missing) {
			t.Errorf("Resolve(%q): %v; want not found", ref, err)
		}
	}
	all, err := x.ResolveAll("web")
	if err != nil || len(all) != 2 {
		t.Errorf("ResolveAll(web) = %d, %v; want 2", len(all), err)
	}
}

func validSpec() *pb.InstanceSpec {
	return &pb.InstanceSpec{
		Name: "web", ModuleHash: "sha256:" + strings.Repeat("a", 64), MemoryLimitBytes: 64 << 20,
		RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS},
	}
}

func TestSpecThatLeavesEverythingOpenRuns(t *testing.T) {
	open := &pb.InstanceSpec{Name: "web", ModuleHash: "sha256:" + strings.Repeat("a", 64)}
	if err := ValidateSpec(WithDefaults(open)); err != nil {
		t.Fatal(err)
	}
	if open.GetRestartPolicy() != nil {
		t.Fatal("the caller's spec was changed")
	}
}

func TestSpecsThatCannotRunAreRefusedWithTheReason(t *testing.T) {
	if err := ValidateSpec(validSpec()); err != nil {
		t.Fatalf("a good spec: %v", err)
	}
	limited := validSpec()
	limited.CpuMillicores, limited.CpuHard, limited.Fuel, limited.RunTimeout = MaxCPU, true, 1, durationpb.New(MaxRun)
	if err := ValidateSpec(limited); err != nil {
		t.Fatalf("a good spec with limits of computing: %v", err)
	}
	for want, spoil := range map[string]func(*pb.InstanceSpec){
		"name":           func(s *pb.InstanceSpec) { s.Name = "../etc" },
		"not an id":      func(s *pb.InstanceSpec) { s.Name = "0198c0de-0000-7000-8000-000000000001" },
		"module":         func(s *pb.InstanceSpec) { s.ModuleHash = "sha256:zz" },
		"memory limit":   func(s *pb.InstanceSpec) { s.MemoryLimitBytes = 1 },
		"restart policy": func(s *pb.InstanceSpec) { s.RestartPolicy = nil },
		"backoff":        func(s *pb.InstanceSpec) { s.RestartPolicy.Backoff = durationpb.New(-1) },
		"at most 1000":   func(s *pb.InstanceSpec) { s.CpuMillicores = 1001 },
		"cpu hard":       func(s *pb.InstanceSpec) { s.CpuHard = true },
		"run timeout -":  func(s *pb.InstanceSpec) { s.RunTimeout = durationpb.New(-1) },
		"run timeout 8":  func(s *pb.InstanceSpec) { s.RunTimeout = durationpb.New(MaxRun + 1) },
		"run timeout: ":  func(s *pb.InstanceSpec) { s.RunTimeout = &durationpb.Duration{Nanos: 1e9} },
		"zero byte":      func(s *pb.InstanceSpec) { s.Args = []string{"a\x00b"} },
		"environment":    func(s *pb.InstanceSpec) { s.Env = map[string]string{"A=B": "c"} },
		"at most 65536":  func(s *pb.InstanceSpec) { s.Args = []string{strings.Repeat("x", MaxSpecBytes+1)} },
		"at most 1024":   func(s *pb.InstanceSpec) { s.Args = slices.Repeat([]string{"x"}, MaxArgs+1) },
	} {
		s := validSpec()
		spoil(s)
		if err := ValidateSpec(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}
