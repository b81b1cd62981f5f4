package cluster

import (
	"cmp"
	"slices"
)

// votersView is what the choice of voters is made from: a plain value, so that the choice is pure.
type votersView struct {
	Self   string     `json:"self"`   // the leader
	Target int        `json:"target"` // how many voters are wanted at the most; odd
	Nodes  []nodeView `json:"nodes"`
}

// nodeView is one node in a votersView.
type nodeView struct {
	ID      string `json:"id"`
	Voter   bool   `json:"voter,omitempty"`
	Alive   bool   `json:"alive,omitempty"`
	Left    bool   `json:"left,omitempty"`
	Settled bool   `json:"settled,omitempty"` // has been as it is for a while
}

// voterChange is one step: a node that is to become a voter or to stop being one.
type voterChange struct {
	Promote string `json:"promote,omitempty"`
	Demote  string `json:"demote,omitempty"`
}

// planVoters returns the next step towards the wanted voters, or nothing. One step at a time, since
// Raft changes its configuration safely only so; the next look decides the next step.
//
// The order of the rules is their safety: who left goes first, then missing voters are added, then
// the dead are replaced, and only then is what is too much taken away. No step is made that leaves
// fewer live voters than a majority of the new configuration.
func planVoters(v votersView) voterChange {
	nodes := slices.Clone(v.Nodes)
	slices.SortFunc(nodes, func(a, b nodeView) int { return cmp.Compare(a.ID, b.ID) })
	var voters, live, eligible, dead, left int
	var candidate, gone, departed, spare string
	for _, n := range nodes {
		settledAlive := n.Alive && n.Settled && !n.Left
		if settledAlive {
			eligible++
		}
		switch {
		case n.Voter:
			voters++
			switch {
			case n.Left:
				left++
				departed = cmp.Or(departed, n.ID)
			case n.Alive:
				live++
				if n.ID != v.Self {
					spare = n.ID // the highest id goes first
				}
			default:
				dead++
				if n.Settled {
					gone = cmp.Or(gone, n.ID)
				}
			}
		case settledAlive && candidate == "":
			candidate = n.ID
		}
	}
	want := target(v.Target, max(eligible, live))
	safe := func(voters, live int) bool { return live >= voters/2+1 }
	switch {
	case departed != "" && departed != v.Self && safe(voters-1, live):
		return voterChange{Demote: departed}
	case live < want && candidate != "" && safe(voters+1, live+1):
		return voterChange{Promote: candidate}
	case gone != "" && live >= want && safe(voters-1, live):
		return voterChange{Demote: gone}
	case gone != "" && voters > 1 && live < want && candidate == "" && voters%2 == 0 && safe(voters-1, live):
		return voterChange{Demote: gone}
	case live > want && spare != "" && safe(voters-1, live-1):
		return voterChange{Demote: spare}
	}
	return voterChange{}
}

// target is how many voters n live nodes should have: odd, at most wanted, and one while there are
// fewer than three nodes, since two voters are worse than one.
func target(wanted, n int) int {
	n = min(n, wanted)
	if n < 3 {
		return 1
	}
	if n%2 == 0 {
		n--
	}
	return n
}
