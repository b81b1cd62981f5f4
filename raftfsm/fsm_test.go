package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func commands() *rapid.Generator[*pb.Command] {
	id := rapid.SampledFrom([]string{"", "a", "b", "c"})
	return rapid.Custom(func(t *rapid.T) *pb.Command {
		switch rapid.IntRange(0, 9).Draw(t, "op") {
		case 0:
			return &pb.Command{Op: &pb.Command_FoundCluster{FoundCluster: &pb.FoundCluster{ClusterId: id.Draw(t, "cluster")}}}
		case 1:
			return &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{
				NodeId: id.Draw(t, "id"), Name: id.Draw(t, "name"), RpcAddr: id.Draw(t, "addr"),
				Labels: map[string]string{"zone": id.Draw(t, "zone")}, Epoch: rapid.Uint64Range(0, 3).Draw(t, "epoch"),
			}}}}
		case 2:
			return &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{
				NodeId: id.Draw(t, "id"), State: pb.NodeState(rapid.Int32Range(0, 5).Draw(t, "state")),
			}}}
		case 3:
			return &pb.Command{Op: &pb.Command_RaiseNodeEpoch{RaiseNodeEpoch: &pb.RaiseNodeEpoch{
				NodeId: id.Draw(t, "id"), FromEpoch: rapid.Uint64Range(0, 3).Draw(t, "from"),
			}}}
		case 4:
			return &pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: id.Draw(t, "id")}}}
		case 5:
			return &pb.Command{Op: &pb.Command_PutProvider{PutProvider: &pb.PutProvider{Provider: &pb.Provider{
				ProviderId: id.Draw(t, "id"), ProviderType: id.Draw(t, "type"), Config: map[string]string{"backend": id.Draw(t, "backend")},
			}}}}
		case 6:
			return &pb.Command{Op: &pb.Command_RemoveProvider{RemoveProvider: &pb.RemoveProvider{ProviderId: id.Draw(t, "id")}}}
		case 7:
			return &pb.Command{Op: &pb.Command_GiveUpNode{GiveUpNode: &pb.GiveUpNode{NodeId: id.Draw(t, "id")}}}
		case 8:
			return &pb.Command{Op: &pb.Command_RestoreMetadata{RestoreMetadata: &pb.RestoreMetadata{Metadata: states().Draw(t, "saved")}}}
		}
		return &pb.Command{Op: &pb.Command_PutSetting{PutSetting: &pb.PutSetting{Key: id.Draw(t, "key"), Value: id.Draw(t, "value")}}}
	})
}

// states are what a leader may have saved once.
func states() *rapid.Generator[*pb.Metadata] {
	id := rapid.SampledFrom([]string{"a", "b", "c"})
	return rapid.Custom(func(t *rapid.T) *pb.Metadata {
		m := &pb.Metadata{ClusterId: rapid.SampledFrom([]string{"", "a"}).Draw(t, "cluster"), Settings: map[string]string{"k": id.Draw(t, "value")}}
		for _, one := range rapid.SliceOfDistinct(id, rapid.ID[string]).Draw(t, "nodes") {
			m.Nodes = append(m.Nodes, &pb.Node{NodeId: one, Name: "name-" + one, Epoch: rapid.Uint64Range(0, 3).Draw(t, "epoch")})
		}
		for _, one := range rapid.SliceOfDistinct(id, rapid.ID[string]).Draw(t, "providers") {
			m.Providers = append(m.Providers, &pb.Provider{ProviderId: one, ProviderType: "kv"})
		}
		return m
	})
}

func apply(t interface{ Fatal(...any) }, f *FSM, cmd *pb.Command) error {
	raw, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	err, _ = f.Apply(&raft.Log{Data: raw}).(error)
	return err
}

// sink keeps a snapshot in memory.
type sink struct{ bytes.Buffer }

func (*sink) ID() string    { return "test" }
func (*sink) Cancel() error { return nil }
func (*sink) Close() error  { return nil }

func persist(t interface{ Fatal(...any) }, f *FSM) []byte {
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s sink
	if err := snap.Persist(&s); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	return s.Bytes()
}

func TestSnapshotRestoresTheStateAndReplayIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := New(), New()
		for _, cmd := range rapid.SliceOfN(commands(), 0, 30).Draw(t, "commands") {
			errA, errB := apply(t, a, cmd), apply(t, b, cmd)
			if fmt.Sprint(errA) != fmt.Sprint(errB) {
				t.Fatalf("%v, but on another node %v", errA, errB)
			}
		}
		if !proto.Equal(a.Metadata(), b.Metadata()) {
			t.Fatal("the same commands made two states")
		}
		c := New()
		if err := c.Restore(io.NopCloser(bytes.NewReader(persist(t, a)))); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(a.Metadata(), c.Metadata()) {
			t.Fatalf("restored\n%v\nfrom a snapshot of\n%v", c.Metadata(), a.Metadata())
		}
	})
}

func TestDamagedSnapshotIsRefusedAndChangesNothing(t *testing.T) {
	f := New()
	if err := apply(t, f, &pb.Command{Op: &pb.Command_FoundCluster{FoundCluster: &pb.FoundCluster{ClusterId: "one"}}}); err != nil {
		t.Fatal(err)
	}
	good := persist(t, f)
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(good)
		at := rapid.IntRange(0, len(bad)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			bad = bad[:at]
		} else {
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		if err := f.Restore(io.NopCloser(bytes.NewReader(bad))); err == nil {
			t.Fatalf("a snapshot damaged at %d was taken", at)
		}
		if f.ClusterID() != "one" {
			t.Fatal("a refused snapshot changed the state")
		}
	})
}

// The log can't hold what instances do, because no message that it can carry leads to one.
func TestNoCommandLeadsToAnInstanceModuleOrLog(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		for _, word := range []string{"Instance", "Module", "Log", "Event", "Report"} {
			if strings.Contains(string(m.Name()), word) {
				t.Errorf("the metadata log can carry a %s", m.FullName())
			}
		}
		for n := range m.Fields().Len() {
			field := m.Fields().Get(n)
			if field.Kind() == protoreflect.BytesKind {
				t.Errorf("%s can carry anything", field.FullName())
			}
			if field.Message() != nil {
				walk(field.Message())
			}
		}
	}
	walk((&pb.Command{}).ProtoReflect().Descriptor())
	walk((&pb.Metadata{}).ProtoReflect().Descriptor())
	if !seen["wasmatrix.v1.Node"] {
		t.Fatal("the walk did not even find nodes")
	}
}

func TestNameBelongsToOneNodeUntilThatHasLeft(t *testing.T) {
	f := New()
	put := func(id, name string) error {
		return apply(t, f, &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: id, Name: name, RpcAddr: "10.0.0.7:7401"}}}})
	}
	if err := put("1", "b3"); err != nil {
		t.Fatal(err)
	}
	var taken *NameTakenError
	if err := put("2", "b3"); !errors.As(err, &taken) || !strings.Contains(err.Error(), `node "b3" is already in the cluster (at 10.0.0.7:7401)`) {
		t.Fatalf("got %v", err)
	}
	left := &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: "1", State: pb.NodeState_NODE_STATE_LEFT}}}
	if err := apply(t, f, left); err != nil {
		t.Fatal(err)
	}
	if err := put("2", "b3"); err != nil {
		t.Fatalf("the name of a node that left: %v", err)
	}
}

func TestRegistrationKeepsEpochAndDrainButEndsALeave(t *testing.T) {
	f := New()
	put := &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: "1", Name: "a"}}}}
	raise := &pb.Command{Op: &pb.Command_RaiseNodeEpoch{RaiseNodeEpoch: &pb.RaiseNodeEpoch{NodeId: "1", FromEpoch: 0}}}
	state := func(s pb.NodeState) *pb.Command {
		return &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: "1", State: s}}}
	}
	for _, cmd := range []*pb.Command{put, raise, raise, state(pb.NodeState_NODE_STATE_DRAINING), put} {
		if err := apply(t, f, cmd); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := f.Node("1"); n.GetEpoch() != 1 || n.GetState() != pb.NodeState_NODE_STATE_DRAINING {
		t.Fatalf("epoch %d, %v; want an epoch raised once and the drain kept", n.GetEpoch(), n.GetState())
	}
	for _, cmd := range []*pb.Command{state(pb.NodeState_NODE_STATE_LEFT), put} {
		if err := apply(t, f, cmd); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := f.Node("1"); n.GetState() != pb.NodeState_NODE_STATE_ACTIVE {
		t.Fatalf("%v; a node that left and registers again is active", n.GetState())
	}
}

func FuzzApply(f *testing.F) {
	raw, err := proto.Marshal(&pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: "x"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		fsm := New()
		before := fsm.Metadata()
		if err, refused := fsm.Apply(&raft.Log{Data: data}).(error); refused && !proto.Equal(before, fsm.Metadata()) {
			t.Fatalf("refused with %v, but the state changed", err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	f.Add(persist(f, New()))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		fsm := New()
		if err := fsm.Restore(io.NopCloser(bytes.NewReader(data))); err == nil {
			persist(t, fsm)
		}
	})
}
