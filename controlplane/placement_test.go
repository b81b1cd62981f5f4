package controlplane

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func candidates() *rapid.Generator[[]candidate] {
	return rapid.Custom(func(t *rapid.T) []candidate {
		n := rapid.IntRange(0, 6).Draw(t, "nodes")
		all := make([]candidate, n)
		for i := range all {
			all[i] = candidate{
				NodeID:       fmt.Sprint("id", i),
				Name:         fmt.Sprint("node", i),
				Refusal:      rapid.SampledFrom([]string{"", "", "", "it is draining"}).Draw(t, "refusal"),
				Labels:       map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")},
				Instances:    rapid.IntRange(0, 5).Draw(t, "instances"),
				Memory:       rapid.Uint64Range(0, 5).Draw(t, "memory"),
				MaxInstances: rapid.IntRange(0, 8).Draw(t, "max instances"),
				MaxMemory:    rapid.Uint64Range(0, 8).Draw(t, "max memory"),
				CPU:          rapid.Uint64Range(0, 5).Draw(t, "cpu"),
				MaxCPU:       rapid.Uint64Range(0, 8).Draw(t, "max cpu"),
				SameName:     rapid.IntRange(0, 3).Draw(t, "same name"),
			}
		}
		return all
	})
}

func TestPlacementNeverExceedsALimitNorIgnoresAConstraint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := candidates().Draw(t, "nodes")
		spec := &pb.InstanceSpec{
			MemoryLimitBytes: rapid.Uint64Range(1, 3).Draw(t, "memory"),
			CpuMillicores:    rapid.Uint32Range(0, 3).Draw(t, "cpu"),
			Fuel:             rapid.Uint64Range(0, 1).Draw(t, "fuel"),
		}
		if rapid.Bool().Draw(t, "constrained") {
			spec.Constraints = map[string]string{"zone": "a"}
		}
		count := rapid.IntRange(1, 10).Draw(t, "count")
		chosen, err := place(nodes, spec, count)
		if err != nil {
			var why *Unplaceable
			if !errors.As(err, &why) || len(why.Reasons) != len(nodes) {
				t.Fatalf("refused without a reason for each of %d nodes: %v", len(nodes), err)
			}
			return
		}
		if len(chosen) != count {
			t.Fatalf("placed %d of %d", len(chosen), count)
		}
		placed := map[string]int{}
		for _, c := range chosen {
			placed[c.NodeID]++
		}
		for _, n := range nodes {
			extra := placed[n.NodeID]
			if extra == 0 {
				continue
			}
			if n.Refusal != "" || (spec.Constraints != nil && n.Labels["zone"] != "a") {
				t.Fatalf("placed on %s, which refuses", n.Name)
			}
			if n.MaxInstances > 0 && n.Instances+extra > n.MaxInstances {
				t.Fatalf("%s would have %d of %d instances", n.Name, n.Instances+extra, n.MaxInstances)
			}
			if n.MaxMemory > 0 && n.Memory+uint64(extra)*spec.MemoryLimitBytes > n.MaxMemory {
				t.Fatalf("%s would exceed its memory", n.Name)
			}
			if spec.CpuMillicores > 0 && n.CPU+uint64(extra)*uint64(spec.CpuMillicores) > n.MaxCPU {
				t.Fatalf("%s would exceed its CPU", n.Name)
			}
			if spec.Fuel > 0 && n.MaxCPU == 0 {
				t.Fatalf("%s would not keep to the budget of fuel", n.Name)
			}
		}
	})
}

func TestPlacementIsTheSameForAnyOrderOfNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := candidates().Draw(t, "nodes")
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		spec := &pb.InstanceSpec{MemoryLimitBytes: 1, CpuMillicores: rapid.Uint32Range(0, 1).Draw(t, "cpu")}
		a, errA := place(nodes, spec, 3)
		b, errB := place(shuffled, spec, 3)
		if (errA == nil) != (errB == nil) {
			t.Fatalf("%v, but %v", errA, errB)
		}
		for i := range a {
			if a[i].NodeID != b[i].NodeID {
				t.Fatalf("instance %d goes to %s or to %s", i, a[i].Name, b[i].Name)
			}
		}
	})
}

// Equal empty nodes get equal shares, whatever the count.
func TestPlacementSpreadsANameOverNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := make([]candidate, rapid.IntRange(1, 7).Draw(t, "nodes"))
		for i := range nodes {
			nodes[i].NodeID = fmt.Sprint(i)
		}
		count := rapid.IntRange(1, 50).Draw(t, "count")
		chosen, err := place(nodes, &pb.InstanceSpec{MemoryLimitBytes: 1}, count)
		if err != nil {
			t.Fatal(err)
		}
		share := map[string]int{}
		for _, c := range chosen {
			share[c.NodeID]++
		}
		for id, n := range share {
			if n < count/len(nodes) || n > count/len(nodes)+1 {
				t.Fatalf("node %s got %d of %d over %d nodes", id, n, count, len(nodes))
			}
		}
	})
}

func TestWhoAsksForCPUGetsWhereALowerShareIsCommitted(t *testing.T) {
	nodes := []candidate{
		{NodeID: "1", Name: "one core", CPU: 500, MaxCPU: 1000, Memory: 1 << 20},
		{NodeID: "2", Name: "four cores", CPU: 1000, MaxCPU: 4000, Memory: 2 << 20},
		{NodeID: "3", Name: "two cores of an earlier version", Memory: 0},
	}
	for cpu, want := range map[uint32]string{0: "two cores of an earlier version", 200: "four cores"} {
		chosen, err := place(nodes, &pb.InstanceSpec{MemoryLimitBytes: 1 << 20, CpuMillicores: cpu}, 1)
		if err != nil || chosen[0].Name != want {
			t.Errorf("%d millicores go to %v, %v; want %s", cpu, chosen, err, want)
		}
	}
}

func TestLimitsOfComputingAreNotLeftToANodeThatKnowsNone(t *testing.T) {
	old := []candidate{{NodeID: "1", Name: "old"}}
	for _, spec := range []*pb.InstanceSpec{{CpuMillicores: 1}, {Fuel: 1}, {RunTimeout: durationpb.New(1)}} {
		_, err := place(old, spec, 1)
		none, ok := errors.AsType[*Unplaceable](err)
		if !ok || none.Full || none.Reasons["old"] != "its version knows no limits of computing" {
			t.Errorf("%v: %v", spec, err)
		}
	}
	if _, err := place(old, &pb.InstanceSpec{RunTimeout: durationpb.New(0)}, 1); err != nil {
		t.Errorf("a time of zero is no limit, but: %v", err)
	}
}

func TestRefusalNamesTheReasonOfEachNode(t *testing.T) {
	nodes := []candidate{
		{NodeID: "1", Name: "full", MaxInstances: 2, Instances: 2},
		{NodeID: "2", Name: "small", MaxMemory: 64 << 20, Memory: 32 << 20},
		{NodeID: "3", Name: "drained", Refusal: "it is draining"},
		{NodeID: "4", Name: "busy", CPU: 1500, MaxCPU: 2000},
	}
	for n := range nodes[:3] {
		nodes[n].MaxCPU = 1000
	}
	_, err := place(nodes, &pb.InstanceSpec{MemoryLimitBytes: 64 << 20, CpuMillicores: 800}, 1)
	if none, ok := errors.AsType[*Unplaceable](err); !ok || !none.Full {
		t.Errorf("want of room is all that is in the way, but: %v", err)
	}
	for _, want := range []string{"full: it has 2 of at most 2 instances", "small: 32 MiB of its 64 MiB are committed, and 64 MiB are needed", "drained: it is draining", "busy: 1500 of its 2000 millicores are committed, and 800 are needed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	_, err = place(nodes[:1], &pb.InstanceSpec{Constraints: map[string]string{"gpu": "yes"}}, 1)
	if err == nil || !strings.Contains(err.Error(), "no label gpu") {
		t.Errorf("want the missing label named, got %v", err)
	}
}
