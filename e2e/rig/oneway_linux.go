package rig

// CutOneWay drops, from now on, everything that a node of one group sends to a node of the other, and
// nothing of what comes back.
func (n *Network) CutOneWay(from, to []*Node) {
	n.t.Helper()
	var rules []string
	for _, a := range from {
		for _, b := range to {
			rules = append(rules, dropped(a, b))
		}
	}
	n.drop(rules)
}
