package chaos

import "github.com/wasmatrix/wasmatrix/e2e/rig"

// The faults of a node that runs on and is not well.

type slow struct{}

// Inject makes the link of one node a bad one.
func (slow) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	node := n.fresh(Slow, nodes)
	if node == nil {
		return nil, nil
	}
	end := n.wires.Slow(node, f.Weather)
	n.struck[Slow][node] = true
	return []*rig.Node{node}, []step{{f.Lasts, func() {
		end()
		delete(n.struck[Slow], node)
	}}}
}

type fullDisk struct{}

// Inject leaves one node no room, and gives it all its room back.
func (fullDisk) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	node := n.fresh(FullDisk, nodes)
	if node == nil {
		return nil, nil
	}
	disk := n.disks[node.Name]
	disk.Fill()
	n.struck[FullDisk][node] = true
	return []*rig.Node{node}, []step{{f.Lasts, func() {
		disk.Free()
		delete(n.struck[FullDisk], node)
		if n.down[node] && !node.Runs() {
			n.start(node) // one that was killed meanwhile
		}
	}}}
}

type hangDisk struct{}

// Inject has the disk of one node not answer, and answer again. One of a node that is killed meanwhile
// answers at its next start.
func (hangDisk) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	node := n.fresh(HangDisk, nodes)
	if node == nil {
		return nil, nil
	}
	answer, err := n.hang(node)
	if err != nil {
		n.field.t.Errorf("hang the disk of %s: %v", node.Name, err)
		return nil, nil
	}
	n.struck[HangDisk][node] = true
	return []*rig.Node{node}, []step{{f.Lasts, func() {
		answer()
		delete(n.struck[HangDisk], node)
	}}}
}

type clockStep struct{}

// Inject moves the clock of one node, and moves it back. One that is killed meanwhile has the true time at
// its next start.
func (clockStep) Inject(n *nemesis, f Fault, nodes []*rig.Node) ([]*rig.Node, []step) {
	node := n.fresh(ClockStep, nodes)
	if node == nil {
		return nil, nil
	}
	if err := n.step(node, f.Step); err != nil {
		n.field.t.Errorf("%v", err)
		return nil, nil
	}
	n.struck[ClockStep][node] = true
	return []*rig.Node{node}, []step{{f.Lasts, func() {
		delete(n.struck[ClockStep], node)
		if !node.Runs() {
			return
		}
		if err := n.step(node, 0); err != nil {
			n.field.t.Errorf("%v", err)
		}
	}}}
}
