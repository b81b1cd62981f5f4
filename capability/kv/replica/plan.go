package replica

import (
	"cmp"
	"slices"
)

// memberView is one node that is in the group, or is to be.
type memberView struct {
	ID       string
	Self     bool // the leader
	Wanted   bool // it is to be in the group
	Member   bool // it is in Raft's configuration
	Voter    bool // and has a vote
	Answers  bool // to the leader's question, of this generation
	UpToDate bool // and has nearly all of the log
}

// change is one step: at most one node is named.
type change struct {
	Add      string // without a vote, to catch up
	Promote  string // to a voter
	Remove   string
	HandOver string // leadership, since the leader is not to be in the group
}

// planMembers returns the next step towards the wanted members, or nothing. One step at a time: Raft changes
// its configuration safely only so, and the next look decides the next step.
//
// Who is new comes first, and catches up before it has a vote. A vote is given or taken only where those of the
// voters that are up to date are a majority afterwards. Somebody who works is let go only when nobody who answers is
// still to come.
func planMembers(members []memberView) change {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b memberView) int { return cmp.Compare(a.ID, b.ID) })
	var voters, live, coming int
	var add, promote, idle, dead, spare, heir string
	leaves := false
	for _, m := range members {
		up := m.Self || m.UpToDate
		if m.Voter {
			voters++
			if up {
				live++
			}
		}
		switch {
		case m.Wanted && !m.Member && m.Answers:
			coming++
			add = cmp.Or(add, m.ID)
		case m.Wanted && m.Member && !m.Voter && m.Answers:
			coming++
			if m.UpToDate {
				promote = cmp.Or(promote, m.ID)
			}
		case m.Wanted && m.Voter && !m.Self && up:
			heir = cmp.Or(heir, m.ID)
		case m.Wanted || !m.Member:
		case m.Self:
			leaves = true
		case !m.Voter:
			idle = cmp.Or(idle, m.ID)
		case up:
			spare = cmp.Or(spare, m.ID)
		default:
			dead = cmp.Or(dead, m.ID)
		}
	}
	if !slices.ContainsFunc(members, func(m memberView) bool { return m.Wanted }) {
		return change{} // nobody was named, which is no word to end the group
	}
	safe := func(voters, live int) bool { return live >= voters/2+1 }
	switch {
	case add != "":
		return change{Add: add}
	case promote != "" && safe(voters+1, live+1):
		return change{Promote: promote}
	case idle != "":
		return change{Remove: idle}
	case dead != "" && safe(voters-1, live):
		return change{Remove: dead}
	case spare != "" && coming == 0 && safe(voters-1, live-1):
		return change{Remove: spare}
	case leaves && coming == 0 && heir != "":
		return change{HandOver: heir}
	}
	return change{}
}
