package mirror

import (
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestNodeIsThereUntilItLeftOrIsLost(t *testing.T) {
	const (
		active, draining = pb.NodeState_NODE_STATE_ACTIVE, pb.NodeState_NODE_STATE_DRAINING
		left, lost       = pb.NodeState_NODE_STATE_LEFT, pb.NodeState_NODE_STATE_LOST
	)
	for _, c := range []struct {
		state   pb.NodeState
		givenUp bool
		heard   string
		want    string // empty where there is no key
	}{
		{active, false, "alive", "alive"}, {draining, false, "alive", "draining"},
		{active, false, "dead", "dead"}, {draining, false, "dead", "dead"}, {active, false, "", "dead"},
		{active, false, "left", ""}, {left, false, "alive", ""}, {left, false, "left", ""}, {lost, false, "dead", ""}, {lost, false, "alive", ""},
		{active, true, "alive", "alive"}, {active, true, "dead", ""}, {active, true, "", ""},
	} {
		got, err := content(keysOf("c"), []*pb.Node{{NodeId: "n", State: c.state, GivenUp: c.givenUp}}, []cluster.Member{{NodeID: "n", State: c.heard}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		value, there := got["/wasmatrix/c/nodes/n"]
		if there != (c.want != "") || there && !strings.Contains(value, `"state":"`+c.want+`"`) {
			t.Errorf("%s, given up: %t, heard as %q: %v; want state %q", c.state, c.givenUp, c.heard, got, c.want)
		}
	}
}

func TestLaterLeadersHaveHigherLeases(t *testing.T) {
	for _, id := range []string{"", "a", "018f2f6e-1111-7000-8000-000000000000"} {
		for _, terms := range [][2]uint64{{1, 2}, {9, 1_000_000_001}, {999_999_999_999, 1_000_000_000_000}} {
			earlier, later := leaseOf(id, terms[0]), leaseOf(id, terms[1])
			if earlier <= 0 || earlier >= later || !sameCluster(earlier, later) {
				t.Errorf("cluster %q, terms %v: leases %d and %d", id, terms, earlier, later)
			}
		}
	}
	if sameCluster(leaseOf("a", 1), leaseOf("b", 1)) {
		t.Error("two clusters share their leases")
	}
}
