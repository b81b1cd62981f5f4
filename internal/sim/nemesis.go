package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/chaos"
)

// nemesis carries out the faults of a round, one after the other.
type nemesis struct {
	sim     *Sim
	pending []step
	err     error
}

// step is something that is done at a time.
type step struct {
	at   time.Time
	do   func()
	undo bool // it is done in any case
}

// strike makes a round's faults happen, waits for their ends, and undoes what is left. Beside them, leadership changes hands at
// any moment, or leaders and followers lose each other for a moment.
func (n *nemesis) strike(ctx context.Context, r chaos.Round) error {
	began := time.Now()
	for _, f := range r.Faults {
		n.pending = append(n.pending, step{at: began.Add(f.At), do: func() { n.inject(f) }})
	}
	for range n.sim.random.IntN(4) {
		at := time.Duration(n.sim.random.Int64N(int64(n.sim.Shape.Strike)))
		n.pending = append(n.pending, step{at: began.Add(at), do: func() {
			if v := n.sim.quorum.leader(); v != nil {
				n.sim.quorum.handOver(v)
			}
		}})
	}
	for len(n.pending) > 0 {
		slices.SortStableFunc(n.pending, func(a, b step) int { return a.at.Compare(b.at) })
		next := n.pending[0]
		n.pending = n.pending[1:]
		waited := sleep(ctx, time.Until(next.at))
		if waited == nil || next.undo {
			next.do()
		}
		n.err = errors.Join(n.err, waited)
	}
	return n.err
}

// inject makes one fault happen, and plans its end.
func (n *nemesis) inject(f chaos.Fault) {
	var nodes []*node
	for _, i := range f.Nodes {
		nodes = append(nodes, n.sim.nodes[i])
	}
	if v := n.sim.quorum.leader(); f.Leader && v != nil {
		leader := n.sim.byID[v.id]
		nodes = slices.Insert(slices.DeleteFunc(nodes, func(other *node) bool { return other == leader }), 0, leader)
		if f.Kind == chaos.CutLeader || f.Kind == chaos.CutOneWay {
			nodes = nodes[:1]
		}
	}
	var struck []*node
	switch f.Kind {
	case chaos.Kill:
		struck = n.kill(f, nodes)
	case chaos.PowerLoss:
		struck = n.powerLoss(f, nodes)
	case chaos.Pause:
		struck = n.freeze(f, nodes)
	default:
		for _, p := range f.Pairs {
			nodes = append(nodes, n.sim.nodes[p[0]], n.sim.nodes[p[1]])
		}
		struck = nodes
		n.cut(f, nodes)
	}
	what := chaos.Struck
	if len(struck) == 0 {
		what = chaos.Skipped
	}
	n.sim.log.Info("nemesis", "what", what, "fault", f.String(), "nodes", names(struck))
	n.sim.history.Add(chaos.Event{What: what, Fault: &f, Nodes: names(struck)})
}

func names(nodes []*node) []string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.name)
	}
	return all
}

// after plans the end of a fault.
func (n *nemesis) after(d time.Duration, f chaos.Fault, struck []*node, do func()) {
	n.pending = append(n.pending, step{at: time.Now().Add(d), undo: true, do: func() {
		do()
		n.sim.log.Info("nemesis", "what", chaos.Undone, "fault", f.String(), "nodes", names(struck))
		n.sim.history.Add(chaos.Event{What: chaos.Undone, Fault: &f, Nodes: names(struck)})
	}})
}

func (n *nemesis) kill(f chaos.Fault, nodes []*node) []*node {
	for _, victim := range nodes {
		if victim.life == nil || n.sim.net.isFrozen(victim.addr) {
			continue
		}
		n.err = errors.Join(n.err, victim.kill())
		n.after(f.Lasts, f, []*node{victim}, func() { n.err = errors.Join(n.err, victim.start()) })
		return []*node{victim}
	}
	return nil
}

func (n *nemesis) powerLoss(f chaos.Fault, nodes []*node) []*node {
	for i, victim := range nodes {
		if victim.life == nil {
			continue
		}
		n.err = errors.Join(n.err, victim.kill())
		n.after(f.Starts[i], f, []*node{victim}, func() { n.err = errors.Join(n.err, victim.start()) })
	}
	return nodes
}

// freeze holds back everything that a node says and hears, and keeps it from hearing that it does not lead any more.
func (n *nemesis) freeze(f chaos.Fault, nodes []*node) []*node {
	for _, victim := range nodes {
		if victim.life == nil || n.sim.net.isFrozen(victim.addr) {
			continue
		}
		n.sim.net.change(func() { n.sim.net.frozen[victim.addr] = true })
		n.after(f.Lasts, f, []*node{victim}, func() {
			n.sim.net.change(func() { delete(n.sim.net.frozen, victim.addr) })
		})
		return []*node{victim}
	}
	return nil
}

func (n *nemesis) cut(f chaos.Fault, side []*node) {
	var ways []way
	both := func(a, b *node) { ways = append(ways, way{a.addr, b.addr}, way{b.addr, a.addr}) }
	for _, p := range f.Pairs {
		both(n.sim.nodes[p[0]], n.sim.nodes[p[1]])
	}
	for _, a := range side {
		for _, b := range n.sim.nodes {
			switch {
			case len(f.Pairs) > 0:
			case slices.Contains(side, b):
			case f.Kind != chaos.CutOneWay:
				both(a, b)
			case f.Inward:
				ways = append(ways, way{b.addr, a.addr})
			default:
				ways = append(ways, way{a.addr, b.addr})
			}
		}
	}
	set := func(cut bool) {
		n.sim.net.change(func() {
			for _, w := range ways {
				n.sim.net.cut[w] = cut
			}
		})
	}
	set(true)
	n.after(f.Lasts, f, side, func() { set(false) })
}
