package chaos

import (
	"syscall"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// injectors are the faults that there are, by their kinds.
var injectors = map[Kind]Injector{
	Kill:      kill{},
	Pause:     pause{},
	PowerLoss: powerLoss{},
	CutHalves: cut{},
	CutOne:    cut{},
	CutLeader: cut{},
	CutOneWay: cutOneWay{},
	CutPairs:  cutPairs{},
	Slow:      slow{},
	FullDisk:  fullDisk{},
	HangDisk:  hangDisk{},
	ClockStep: clockStep{},
}

type kill struct{}

// Inject kills one node that runs, and starts it again.
func (kill) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	node := n.free(nodes)
	if node == nil {
		return nil, nil
	}
	node.Kill()
	n.down[node] = true
	return []*rig.Node{node}, []step{{f.Lasts, func() {
		if !node.Runs() {
			n.start(node)
		}
	}}}
}

type pause struct{}

// Inject stops one node that runs in its tracks, and lets it go on.
func (pause) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	node := n.free(nodes)
	if node == nil {
		return nil, nil
	}
	node.Pause()
	n.down[node] = true
	return []*rig.Node{node}, []step{{f.Lasts, func() {
		node.Continue()
		delete(n.down, node)
	}}}
}

type powerLoss struct{}

// Inject kills all nodes, and starts each when the plan says so.
func (powerLoss) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	for _, node := range nodes {
		node.Signal(syscall.SIGKILL) // all before the first is waited for
	}
	var undo []step
	for i, node := range nodes {
		node.Kill()
		n.down[node] = true
		undo = append(undo, step{f.Starts[i], func() {
			node.Restart()
			delete(n.down, node)
		}})
	}
	return nodes, undo
}

type cut struct{}

// Inject cuts the nodes off from the others.
func (cut) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	n.wires.Cut(nodes, n.others(nodes))
	return nodes, []step{{f.Lasts, n.wires.Heal}}
}

type cutOneWay struct{}

// Inject drops what goes from the nodes to the others, or the other way.
func (cutOneWay) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	from, to := nodes, n.others(nodes)
	if f.Inward {
		from, to = to, from
	}
	n.wires.CutOneWay(from, to)
	return nodes, []step{{f.Lasts, n.wires.Heal}}
}

type cutPairs struct{}

// Inject cuts the nodes of each pair from each other.
func (cutPairs) Inject(n *nemesis, f Fault, _ []*rig.Node) ([]*rig.Node, []step) {
	var struck []*rig.Node
	for _, p := range f.Pairs {
		a, b := n.field.nodes[p[0]], n.field.nodes[p[1]]
		n.wires.Cut([]*rig.Node{a}, []*rig.Node{b})
		struck = append(struck, a, b)
	}
	return struck, []step{{f.Lasts, n.wires.Heal}}
}
