package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// Injector carries out the faults of one kind, by [injectors].
type Injector interface {
	// Inject makes the fault happen to these nodes, the first of them if the kind strikes one. It returns
	// the nodes that it struck, none where there was nothing to strike, and the steps that undo it.
	Inject(n *nemesis, f Fault, nodes []*rig.Node) (struck []*rig.Node, undo []step)
}

// step is something to be done so long after the fault began, and at the latest when all is healed.
type step struct {
	after time.Duration
	do    func()
}

// nemesis carries out a plan, one thing after the other.
type nemesis struct {
	means

	field *field
	// Nodes whose processes do not run, or not on.
	down map[*rig.Node]bool
	// Nodes that a fault of these kinds is upon.
	struck map[Kind]map[*rig.Node]bool
}

func newNemesis(f *field, m means) *nemesis {
	return &nemesis{means: m, field: f, down: map[*rig.Node]bool{}, struck: map[Kind]map[*rig.Node]bool{Slow: {}, FullDisk: {}, HangDisk: {}, ClockStep: {}}}
}

// due is a step with its time, and the event that tells of it.
type due struct {
	step

	at   time.Time
	what Event
}

// strike makes a round's faults happen, waits for their ends, and undoes what is left.
func (n *nemesis) strike(ctx context.Context, r Round) error {
	began := time.Now()
	var pending []due
	for _, f := range r.Faults {
		pending = append(pending, due{at: began.Add(f.At), step: step{do: func() {
			pending = append(pending, n.inject(ctx, f)...)
		}}})
	}
	defer func() { // also where the wait was cut short
		for _, d := range pending {
			n.take(d)
		}
	}()
	for len(pending) > 0 {
		slices.SortStableFunc(pending, func(a, b due) int { return a.at.Compare(b.at) })
		next := pending[0]
		if err := waitUntil(ctx, next.at); err != nil {
			// What has not begun shall not.
			pending = slices.DeleteFunc(pending, func(d due) bool { return d.what.What == "" })
			return fmt.Errorf("round %d: %w", r.Number, err)
		}
		pending = pending[1:]
		n.take(next)
	}
	return nil
}

func (n *nemesis) take(d due) {
	d.do()
	if d.what.What != "" {
		n.field.history.Add(d.what)
	}
}

// inject makes one fault happen, and returns what undoes it.
func (n *nemesis) inject(ctx context.Context, f Fault) []due {
	var nodes []*rig.Node
	for _, i := range f.Nodes {
		nodes = append(nodes, n.field.nodes[i])
	}
	if f.Leader {
		if leader := n.field.leader(ctx, n.down); leader != nil {
			nodes = slices.DeleteFunc(nodes, func(other *rig.Node) bool { return other == leader })
			nodes = slices.Insert(nodes, 0, leader)
			if f.Kind == CutLeader || f.Kind == CutOneWay {
				nodes = nodes[:1]
			}
		}
	}
	began := time.Now()
	struck, undo := injectors[f.Kind].Inject(n, f, nodes)
	e := Event{What: Struck, Fault: &f, Nodes: names(struck)}
	if len(struck) == 0 {
		e.What = Skipped
	}
	n.field.history.Add(e)
	n.field.logf("  %s: %s, striking %s", e.What, f, names(struck))
	var dues []due
	for _, s := range undo {
		dues = append(dues, due{step: s, at: began.Add(s.after), what: Event{What: Undone, Fault: &f, Nodes: names(struck)}})
	}
	return dues
}

// free returns the first of these nodes that runs on, or nil.
func (n *nemesis) free(nodes []*rig.Node) *rig.Node {
	for _, node := range nodes {
		if !n.down[node] {
			return node
		}
	}
	return nil
}

// fresh returns the first of these nodes that runs on and that no fault of that kind is upon, or nil.
func (n *nemesis) fresh(kind Kind, nodes []*rig.Node) *rig.Node {
	return n.free(slices.DeleteFunc(slices.Clone(nodes), func(node *rig.Node) bool { return n.struck[kind][node] }))
}

// start starts a node that was killed, unless its disk is full: then that is done when there is room.
func (n *nemesis) start(node *rig.Node) {
	if n.struck[FullDisk][node] {
		return
	}
	node.Restart()
	delete(n.down, node)
}

// others returns the nodes that are not among these.
func (n *nemesis) others(nodes []*rig.Node) []*rig.Node {
	return slices.DeleteFunc(slices.Clone(n.field.nodes), func(node *rig.Node) bool { return slices.Contains(nodes, node) })
}

func waitUntil(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func names(nodes []*rig.Node) []string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	return all
}
