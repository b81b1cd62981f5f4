package chaos

import (
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// means are what faults are carried out with.
type means struct {
	wires wires
	disks map[string]disk // by the node's name
	hang  func(*rig.Node) (answer func(), err error)
	step  func(*rig.Node, time.Duration) error
	// The kinds of fault that can't be carried out here, with what they would take.
	lacking map[Kind]error
}

// wires is a network that can be cut, until Heal, and slowed, until the end that it returns.
type wires interface {
	Cut(group, other []*rig.Node)
	CutOneWay(from, to []*rig.Node)
	Heal()
	Slow(node *rig.Node, w rig.Weather) (end func())
}

// disk is where a node keeps its data, and can be full.
type disk interface {
	Fill()
	Free()
}
