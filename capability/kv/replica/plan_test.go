package replica

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestStepsTowardsTheWantedMembers(t *testing.T) {
	self := memberView{ID: "a", Self: true, Wanted: true, Member: true, Voter: true}
	voter := func(id string) memberView {
		return memberView{ID: id, Wanted: true, Member: true, Voter: true, Answers: true, UpToDate: true}
	}
	with := func(m memberView, change func(*memberView)) memberView {
		change(&m)
		return m
	}
	unwanted := func(m *memberView) { m.Wanted = false }
	dead := func(m *memberView) { m.Answers, m.UpToDate = false, false }
	for _, test := range []struct {
		name    string
		members []memberView
		want    change
	}{
		{"all is well", []memberView{self, voter("b"), voter("c")}, change{}},
		{"one is new", []memberView{self, {ID: "b", Wanted: true, Answers: true}}, change{Add: "b"}},
		{"one is new and not there", []memberView{self, {ID: "b", Wanted: true}}, change{}},
		{"one catches up", []memberView{self, {ID: "b", Wanted: true, Member: true, Answers: true}}, change{}},
		{"one has caught up", []memberView{self, {ID: "b", Wanted: true, Member: true, Answers: true, UpToDate: true}}, change{Promote: "b"}},
		{
			"a vote that makes a quorum again is given",
			[]memberView{self, with(voter("b"), dead), {ID: "c", Wanted: true, Member: true, Answers: true, UpToDate: true}},
			change{Promote: "c"},
		},
		{
			"a vote that makes no quorum waits",
			[]memberView{self, with(voter("b"), dead), with(voter("c"), dead), {ID: "d", Wanted: true, Member: true, Answers: true, UpToDate: true}},
			change{},
		},
		{
			"a dead one is replaced first", []memberView{
				self, voter("b"), with(with(voter("c"), unwanted), dead), {ID: "d", Wanted: true, Answers: true},
			}, change{Add: "d"},
		},
		{
			"and then removed", []memberView{self, voter("b"), with(with(voter("c"), unwanted), dead), voter("d")},
			change{Remove: "c"},
		},
		{"a dead one of two goes", []memberView{self, with(with(voter("b"), unwanted), dead)}, change{Remove: "b"}},
		{
			"one who works stays until the others have come",
			[]memberView{self, with(voter("b"), unwanted), {ID: "c", Wanted: true, Member: true, Answers: true}}, change{},
		},
		{"one who works goes in the end", []memberView{self, with(voter("b"), unwanted), voter("c")}, change{Remove: "b"}},
		{
			"one who works stays where the rest would be no quorum",
			[]memberView{self, with(voter("b"), unwanted), with(voter("c"), dead)}, change{},
		},
		{"one that never caught up goes", []memberView{self, {ID: "b", Member: true}}, change{Remove: "b"}},
		{"the leader goes last", []memberView{with(self, unwanted), voter("b"), with(voter("c"), unwanted)}, change{Remove: "c"}},
		{"the leader goes", []memberView{with(self, unwanted), voter("b")}, change{HandOver: "b"}},
		{"the leader stays while nobody can lead", []memberView{with(self, unwanted), with(voter("b"), dead)}, change{}},
		{"nobody is wanted", []memberView{with(self, unwanted), with(voter("b"), unwanted)}, change{}},
	} {
		if got := planMembers(test.members); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// Whatever happens to the nodes, following the steps keeps a majority of the voters up to date, if there was one,
// and ends where it is to.
func TestStepsKeepAQuorumAndEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "nodes")
		members := make([]memberView, n)
		for i := range members {
			m := &members[i]
			m.ID, m.Self = string(rune('a'+i)), i == 0
			m.Wanted = rapid.Bool().Draw(t, "wanted")
			m.Member = m.Self || rapid.Bool().Draw(t, "member")
			m.Voter = m.Self || m.Member && rapid.Bool().Draw(t, "voter")
			m.Answers = m.Self || rapid.Bool().Draw(t, "answers")
			m.UpToDate = m.Self || m.Answers && m.Member && rapid.Bool().Draw(t, "up to date")
		}
		quorum := func() bool {
			voters, live := 0, 0
			for _, m := range members {
				if m.Voter {
					voters++
					if m.Self || m.UpToDate {
						live++
					}
				}
			}
			return live > voters/2
		}
		had := quorum()
		for range 10 * n {
			step := planMembers(members)
			if step == (change{}) {
				return
			}
			at := slices.IndexFunc(members, func(m memberView) bool {
				return m.ID == step.Add || m.ID == step.Promote || m.ID == step.Remove || m.ID == step.HandOver
			})
			m := &members[at]
			switch {
			case step.Add != "":
				m.Member = true
				m.UpToDate = rapid.Bool().Draw(t, "catches up")
			case step.Promote != "":
				m.Voter = true
			case step.Remove != "":
				if m.Self || m.Wanted {
					t.Fatalf("%s is removed", m.ID)
				}
				m.Member, m.Voter, m.UpToDate = false, false, false
			case step.HandOver != "":
				if !m.Wanted || !m.UpToDate {
					t.Fatalf("%s is to lead", m.ID)
				}
				return
			}
			if had && !quorum() {
				t.Fatalf("%+v cost the quorum: %+v", step, members)
			}
		}
		t.Fatal("it does not end")
	})
}
