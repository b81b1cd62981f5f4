package chaos

import "slices"

// Kind is a kind of fault.
type Kind string

const (
	// Kill is kill -9 of a node, which is started again later.
	Kill Kind = "kill"
	// Pause stops a node in its tracks, and lets it go on later.
	Pause Kind = "pause"
	// PowerLoss is kill -9 of all nodes at once. They are started in any order.
	PowerLoss Kind = "power-loss"
	// CutHalves parts the nodes in two groups.
	CutHalves Kind = "cut-halves"
	// CutOne cuts one node off.
	CutOne Kind = "cut-one"
	// CutLeader cuts the leader off.
	CutLeader Kind = "cut-leader"
	// CutOneWay drops what one node sends to the others, or what they send to it.
	CutOneWay Kind = "cut-one-way"
	// CutPairs cuts neighbors of a random ring from each other: nobody sees all, and no side is cut off.
	CutPairs Kind = "cut-pairs"
	// Slow delays what one node sends and is sent, and loses, doubles and reorders some of it.
	Slow Kind = "slow"
	// FullDisk leaves no room where one node keeps its data.
	FullDisk Kind = "full-disk"
	// HangDisk has the disk of one node not answer.
	HangDisk Kind = "hang-disk"
	// ClockStep moves the wall clock of one node, and back later.
	ClockStep Kind = "clock-step"
)

// Faults are all kinds of fault that the product must survive.
var Faults = slices.Concat(networkFaults, []Kind{Kill, Pause, PowerLoss, Slow, FullDisk, HangDisk, ClockStep})

// networkFaults are those that cut a network of our own. There is one of them at a time.
var networkFaults = []Kind{CutHalves, CutOne, CutLeader, CutOneWay, CutPairs}

// cuts says whether a fault cuts the network.
func (k Kind) cuts() bool { return slices.Contains(networkFaults, k) }
