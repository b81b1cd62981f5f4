package chaos

import "slices"

// Promises is what the product is held to: the faults that it must survive, and what survives them.
type Promises struct {
	// What may happen to it.
	Faults []Kind
	// A node that is started again, or the others, run what it ran when it was killed.
	OutlivesKill bool
	// What a leader acknowledges while it is being cut off, and knows nothing of that, holds.
	OutlivesCut bool
	// A start that came to nothing, and that nobody was told of, does not stay listed.
	ForgetsUnanswered bool
}

// Demanded is what `make test` holds the product to.
var Demanded = Everything

// Today is what it kept before it had a journal: what a killed node ran may be gone.
var Today = Promises{Faults: slices.Concat(networkFaults, []Kind{Kill, Pause})}

// Everything is what it is to keep in the end.
var Everything = Promises{Faults: slices.Concat(networkFaults, []Kind{Kill, Pause, PowerLoss}), OutlivesKill: true, OutlivesCut: true, ForgetsUnanswered: true}

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
)

// networkFaults are those that take a network of our own. There is one of them at a time.
var networkFaults = []Kind{CutHalves, CutOne, CutLeader, CutOneWay, CutPairs}

// cuts says whether a fault is one of the network.
func (k Kind) cuts() bool { return slices.Contains(networkFaults, k) }
