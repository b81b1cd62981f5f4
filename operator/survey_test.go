package operator

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func member(name, state string) cluster.Member {
	return cluster.Member{NodeID: name, Name: name, State: state, Self: name == "a"}
}

func state(name string, lastTerm, lastIndex uint64, voters ...string) *pb.RaftState {
	return &pb.RaftState{NodeId: name, NodeName: name, Term: lastTerm, LastTerm: lastTerm, LastIndex: lastIndex, VoterIds: voters}
}

// asked is a survey by node a, one of three voters of which two are dead, and of an agent d.
func asked(change func(*survey)) survey {
	s := survey{
		Self: "a", ClusterID: "cluster", Silent: map[string]error{}, Names: map[string]string{},
		Members: []cluster.Member{member("a", "alive"), member("b", "dead"), member("c", "dead"), member("d", "alive")},
		States:  map[string]*pb.RaftState{"a": state("a", 3, 40, "a", "b", "c"), "d": state("d", 0, 0)},
	}
	if change != nil {
		change(&s)
	}
	return s
}

func TestNewQuorumIsFoundedOnlyWhereAndWhenItIsRight(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*survey)
		force  bool
		refuse string // what the refusal says; empty for none
	}{
		{name: "two of three voters are dead"},
		{name: "somebody leads", force: true, refuse: "node a leads", change: func(s *survey) { s.States["a"].Leads = true }},
		{name: "another node leads", force: true, refuse: "node d leads", change: func(s *survey) { s.States["d"].Leads = true }},
		{name: "no cluster", force: true, refuse: "belongs to no cluster", change: func(s *survey) { s.ClusterID = "" }},
		{name: "enough voters live", force: true, refuse: "2 of 3 voters are alive (a, b)", change: func(s *survey) {
			s.Members[1].State = "alive"
			s.States["b"] = state("b", 3, 40, "a", "b", "c")
		}},
		{name: "a silent voter counts as one", force: true, refuse: "2 of 3 voters are alive (a, b)", change: func(s *survey) {
			s.Members[1].State = "alive"
			s.Silent["b"] = errors.New("no answer")
		}},
		{name: "a voter that came back without its log", change: func(s *survey) {
			s.Members[1].State = "alive"
			s.States["b"] = state("b", 0, 0)
		}},
		{name: "an agent is silent", refuse: "node d is alive and does not say", change: func(s *survey) {
			delete(s.States, "d")
			s.Silent["d"] = errors.New("no answer")
		}},
		{name: "an agent is silent, by force", force: true, change: func(s *survey) {
			delete(s.States, "d")
			s.Silent["d"] = errors.New("no answer")
		}},
		{name: "another knows a later entry", refuse: "node d knows more than a", change: func(s *survey) { s.States["d"] = state("d", 3, 41, "a", "b", "c") }},
		{name: "another knows a later term", refuse: "node d knows more than a", change: func(s *survey) { s.States["d"] = state("d", 4, 2, "a", "b", "c") }},
		{name: "another knows more, by force", force: true, change: func(s *survey) { s.States["d"] = state("d", 3, 41, "a", "b", "c") }},
		{name: "another knows of a newer quorum", force: true, refuse: "newer quorum", change: func(s *survey) { s.States["d"].QuorumGeneration = 1 }},
		{name: "no voter survived", change: func(s *survey) {
			s.States["a"] = state("a", 0, 0)
			s.Members[1].Voter, s.Members[2].Voter = true, true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := asked(c.change).judge(c.force)
			switch {
			case c.refuse == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case c.refuse != "" && (err == nil || !strings.Contains(err.Error(), c.refuse) || rpc.CodeOf(err) != rpc.InvalidRequest):
				t.Fatalf("got %v, want a refusal that says %q", err, c.refuse)
			}
			if err == nil && !slices.Contains(p.GivenUp, "c") {
				t.Errorf("given up are %v", p.GivenUp)
			}
			if err == nil && !slices.Contains(p.Survivors, "d") {
				t.Errorf("survivors are %v", p.Survivors)
			}
		})
	}
}
