package replica

import (
	"fmt"
	"testing"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// TestNothingIsAcknowledgedByOneOfSeveral: a group that has just been founded would lose it with the founder.
func TestNothingIsAcknowledgedByOneOfSeveral(t *testing.T) {
	c := newCluster(t, 1)
	founder := c.all()[0]
	group := &pb.ReplicaGroup{Generation: 1, FounderId: founder.id}
	for n := range 3 {
		group.Voters = append(group.Voters, &pb.ProviderPlace{NodeId: fmt.Sprint("n", n)})
	}
	founder.Follow(group)
	store := founder.Store("kv")
	waitFor(t, "the founder to lead", func() string {
		if leader, self := founder.Leader(); !self {
			return fmt.Sprintf("%q leads", leader)
		}
		return ""
	})
	_, err := store.Set(t.Context(), "b", "k", []byte("v"), capability.SetOptions{})
	if capability.FromError(err).Status != capability.Unavailable {
		t.Fatalf("alone of three it answers %v", err)
	}
	if _, ok, err := store.Exists(t.Context(), "b", "k"); err != nil || ok {
		t.Fatalf("what was refused is there: %t, %v", ok, err)
	}
	c.start("n1", t.TempDir()).Follow(group)
	waitFor(t, "a write to be taken by two of three", func() string {
		if _, err := store.Set(t.Context(), "b", "k", []byte("v"), capability.SetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
}
