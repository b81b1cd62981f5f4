package raftfsm

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestRestoreForgetsNoNodeAndLowersNoEpoch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := New()
		for _, cmd := range rapid.SliceOfN(commands(), 0, 20).Draw(t, "commands") {
			_ = apply(t, f, cmd) // refused ones change nothing
		}
		before, saved := f.Metadata(), states().Draw(t, "saved")
		cmd := &pb.Command{Op: &pb.Command_RestoreMetadata{RestoreMetadata: &pb.RestoreMetadata{Metadata: saved}}}
		if err := apply(t, f, cmd); err != nil {
			if !proto.Equal(before, f.Metadata()) {
				t.Fatalf("refused with %v, but the state changed", err)
			}
			return
		}
		for _, n := range before.GetNodes() {
			if now, ok := f.Node(n.GetNodeId()); !ok || now.GetEpoch() < n.GetEpoch() || now.GetState() != n.GetState() || now.GetName() != n.GetName() {
				t.Fatalf("node %v became %v", n, now)
			}
		}
		for _, n := range saved.GetNodes() {
			if now, ok := f.Node(n.GetNodeId()); ok && now.GetEpoch() < n.GetEpoch() {
				t.Fatalf("node %v was saved with a higher epoch: %v", now, n)
			}
		}
		once := f.Metadata()
		if err := apply(t, f, cmd); err != nil || !proto.Equal(once, f.Metadata()) {
			t.Fatalf("the same restore again: %v, and\n%v\nbecame\n%v", err, once, f.Metadata())
		}
		if len(once.GetProviders()) != len(saved.GetProviders()) || once.GetSettings()["k"] != saved.GetSettings()["k"] {
			t.Fatalf("providers and settings are not those that were saved: %v", once)
		}
	})
}

func TestRestoreOfAnotherClusterIsRefused(t *testing.T) {
	f := New()
	if err := apply(t, f, &pb.Command{Op: &pb.Command_FoundCluster{FoundCluster: &pb.FoundCluster{ClusterId: "ours"}}}); err != nil {
		t.Fatal(err)
	}
	restore := &pb.Command{Op: &pb.Command_RestoreMetadata{RestoreMetadata: &pb.RestoreMetadata{Metadata: &pb.Metadata{ClusterId: "theirs"}}}}
	var foreign *ForeignClusterError
	if err := apply(t, f, restore); !errors.As(err, &foreign) {
		t.Fatalf("got %v", err)
	}
}

func TestRestoredNodeDoesNotTakeANameThatIsInUse(t *testing.T) {
	now := &pb.Metadata{Nodes: []*pb.Node{{NodeId: "new", Name: "b3"}}}
	saved := &pb.Metadata{ClusterId: "c", Nodes: []*pb.Node{{NodeId: "old", Name: "b3", Epoch: 2}, {NodeId: "away", Name: "b4", Epoch: 3}}}
	r, err := Merge(now, saved)
	if err != nil || len(r.Metadata.GetNodes()) != 2 || !slices.Equal(r.Added, []string{"b4"}) {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A quorum that was founded by a node without metadata knows no epochs, but the nodes do.
func TestRegistrationBringsTheEpochThatTheNodeRemembers(t *testing.T) {
	f := New()
	put := func(epoch uint64) uint64 {
		if err := apply(t, f, &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: "1", Name: "a", Epoch: epoch}}}}); err != nil {
			t.Fatal(err)
		}
		n, _ := f.Node("1")
		return n.GetEpoch()
	}
	for _, step := range []struct{ said, want uint64 }{{4, 4}, {2, 4}, {0, 4}, {5, 5}} {
		if got := put(step.said); got != step.want {
			t.Errorf("a node that remembers epoch %d has %d, want %d", step.said, got, step.want)
		}
	}
}

func TestGivenUpNodeIsWaitedForAgainOnceItRegisters(t *testing.T) {
	f := New()
	for _, cmd := range []*pb.Command{
		{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: "1", Name: "a"}}}},
		{Op: &pb.Command_GiveUpNode{GiveUpNode: &pb.GiveUpNode{NodeId: "1"}}},
	} {
		if err := apply(t, f, cmd); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := f.Node("1"); !n.GetGivenUp() {
		t.Fatalf("%v is not given up", n)
	}
	back := &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: "1", Name: "a", GivenUp: true}}}}
	if err := apply(t, f, back); err != nil {
		t.Fatal(err)
	}
	if n, _ := f.Node("1"); n.GetGivenUp() {
		t.Fatalf("%v is still given up", n)
	}
}

// Who founded a cluster without a name, or by a version that knew none, called it by its default.
func TestClusterKeepsTheNameOfItsFounding(t *testing.T) {
	f := New()
	if name := f.ClusterName(); name != "wasmatrix" {
		t.Errorf("without a name it is %q", name)
	}
	for _, c := range []struct{ now, saved, want string }{{"paris", "", "paris"}, {"paris", "rome", "paris"}, {"", "rome", "rome"}, {"", "", ""}} {
		r, err := Merge(named(c.now), named(c.saved))
		if got := r.Metadata.GetSettings()[SettingClusterName]; err != nil || got != c.want {
			t.Errorf("%q restored over %q is %q, %v", c.saved, c.now, got, err)
		}
	}
}

func named(name string) *pb.Metadata {
	m := &pb.Metadata{ClusterId: "c"}
	if name != "" {
		m.Settings = map[string]string{SettingClusterName: name}
	}
	return m
}

// TestFoundingOfTheReplicasIsNeverTakenBack: two foundings of one generation would be two groups.
func TestFoundingOfTheReplicasIsNeverTakenBack(t *testing.T) {
	saved := &pb.Metadata{ClusterId: "c", Settings: map[string]string{SettingReplicas: "1/old", "k": "then"}}
	now := &pb.Metadata{ClusterId: "c", Settings: map[string]string{SettingReplicas: "2/new", "k": "now"}}
	for _, one := range []struct {
		now  *pb.Metadata
		want string
	}{{now, "2/new"}, {&pb.Metadata{ClusterId: "c"}, "1/old"}} {
		r, err := Merge(one.now, saved)
		if err != nil || r.Metadata.GetSettings()[SettingReplicas] != one.want || r.Metadata.GetSettings()["k"] != "then" {
			t.Errorf("restored over %v it is %v, %v", one.now.GetSettings(), r.Metadata.GetSettings(), err)
		}
	}
}
