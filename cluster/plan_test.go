package cluster

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

type countingStream struct {
	raft.StreamLayer
	cuts, restores atomic.Int32
}

func (s *countingStream) Cut()     { s.cuts.Add(1) }
func (s *countingStream) Restore() { s.restores.Add(1) }

func TestTargetIsOddAndNeverTwo(t *testing.T) {
	for _, c := range []struct{ wanted, live, want int }{{3, 0, 1}, {3, 1, 1}, {3, 2, 1}, {3, 3, 3}, {3, 9, 3}, {5, 4, 3}, {5, 5, 5}, {1, 9, 1}} {
		if got := target(c.wanted, c.live); got != c.want {
			t.Errorf("target(%d, %d) = %d, want %d", c.wanted, c.live, got, c.want)
		}
	}
}

func views() *rapid.Generator[votersView] {
	return rapid.Custom(func(t *rapid.T) votersView {
		v := votersView{Self: "n0", Target: rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "target")}
		for n := range rapid.IntRange(1, 9).Draw(t, "nodes") {
			node := nodeView{ID: fmt.Sprint("n", n), Settled: rapid.Bool().Draw(t, "settled"), Voter: rapid.Bool().Draw(t, "voter")}
			switch rapid.IntRange(0, 2).Draw(t, "state") {
			case 0:
				node.Alive = true
			case 1:
				node.Left = true
			}
			if n == 0 {
				node = nodeView{ID: "n0", Alive: true, Voter: true, Settled: true}
			}
			v.Nodes = append(v.Nodes, node)
		}
		return v
	})
}

func apply(v votersView, c voterChange) votersView {
	v.Nodes = slices.Clone(v.Nodes)
	for n := range v.Nodes {
		switch v.Nodes[n].ID {
		case c.Promote:
			v.Nodes[n].Voter = true
		case c.Demote:
			v.Nodes[n].Voter = false
		}
	}
	return v
}

func quorum(v votersView) (voters, live int) {
	for _, n := range v.Nodes {
		if n.Voter {
			voters++
			if n.Alive {
				live++
			}
		}
	}
	return voters, live
}

// A step never takes the leader's vote, never promotes who is not there, and never leaves a quorum
// that the live voters can't make, unless it could not be made before either.
func TestVoterStepsAreSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := views().Draw(t, "view")
		c := planVoters(v)
		if c == (voterChange{}) {
			return
		}
		if c.Demote == v.Self {
			t.Fatal("the leader takes its own vote")
		}
		for _, n := range v.Nodes {
			if n.ID == c.Promote && (!n.Alive || n.Left || !n.Settled || n.Voter) {
				t.Fatalf("promotes %+v", n)
			}
		}
		voters, live := quorum(apply(v, c))
		if live < voters/2+1 {
			t.Fatalf("%+v leaves %d live of %d voters", c, live, voters)
		}
	})
}

// With a quorum, the steps come to an end, and then there are as many live voters as can be.
func TestVotersConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := views().Draw(t, "view")
		for n := range v.Nodes {
			v.Nodes[n].Settled = true
		}
		if voters, live := quorum(v); live < voters/2+1 {
			return
		}
		present := 0
		for _, n := range v.Nodes {
			if n.Alive {
				present++
			}
		}
		for range 50 {
			c := planVoters(v)
			if c == (voterChange{}) {
				if _, live := quorum(v); live != target(v.Target, present) {
					t.Fatalf("ends with %d live voters of %d nodes, want %d: %+v", live, present, target(v.Target, present), v)
				}
				return
			}
			v = apply(v, c)
		}
		t.Fatalf("does not come to an end: %+v", v)
	})
}
