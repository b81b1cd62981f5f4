package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// Shape is how large a storm is.
type Shape struct {
	Nodes  int
	Rounds int
	// About how long a round's faults last, together.
	Strike time.Duration
	// The longest pause of a process; most are a third of it at most.
	LongestPause time.Duration
	// The kinds of fault to choose from.
	Faults []Kind
}

// Round is what happens to the cluster before it is healed.
type Round struct {
	Number int     `json:"number"`
	Faults []Fault `json:"faults"`
}

// Fault is one thing that happens. Nodes are numbers from 0: a plan knows no names.
type Fault struct {
	Kind Kind `json:"kind"`
	// When it begins, from the beginning of the round, and how long it lasts.
	At    time.Duration `json:"at"`
	Lasts time.Duration `json:"lasts"`
	// Whom it strikes; of a cut, one side.
	Nodes []int `json:"nodes,omitempty"`
	// It strikes whoever leads when it begins. Nodes is for where nobody does.
	Leader bool `json:"leader,omitempty"`
	// Of a cut in one direction: what the nodes send goes through, and what is sent to them does not.
	Inward bool `json:"inward,omitempty"`
	// Of a loss of power: how long after it each of Nodes is started, in the order of Nodes.
	Starts []time.Duration `json:"starts,omitempty"`
	// Of a cut of pairs.
	Pairs [][2]int `json:"pairs,omitempty"`
	// Of a slow link.
	Weather rig.Weather `json:"weather,omitzero"`
	// Of a clock: whole seconds that it is ahead or, below nothing, behind.
	Step time.Duration `json:"step,omitempty"`
}

// String returns the fault in short.
func (f Fault) String() string {
	who := fmt.Sprint(f.Nodes)
	switch {
	case len(f.Pairs) > 0:
		who = fmt.Sprint(f.Pairs)
	case f.Leader:
		who = "the leader"
	case f.Inward:
		who += " inward"
	}
	switch f.Kind {
	case Slow:
		who += fmt.Sprintf(" by %s and %d %% lost", f.Weather.Delay.Round(time.Millisecond), f.Weather.Lost)
	case ClockStep:
		who += fmt.Sprintf(" by %s", f.Step)
	default:
	}
	return fmt.Sprintf("%s of %s at %s for %s", f.Kind, who, f.At.Round(time.Millisecond), f.Lasts.Round(time.Millisecond))
}

// Plan returns the faults of a storm. The same seed and shape give the same plan, and a storm of more
// rounds begins with those of a shorter one.
func Plan(seed uint64, s Shape) []Round {
	// Each kind leads a round before one does so again.
	deck := slices.Clone(s.Faults)
	random := rand.New(rand.NewPCG(seed, 0))
	random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	rounds := make([]Round, s.Rounds)
	for i := range rounds {
		p := planner{rand.New(rand.NewPCG(seed, uint64(i)+1)), s}
		rounds[i] = Round{Number: i + 1, Faults: p.round(deck[i%len(deck)])}
	}
	return rounds
}

// slowest is how long a packet on a slow link is under way, in either direction.
const slowest = 200 * time.Millisecond

// planner draws the faults of one round.
type planner struct {
	*rand.Rand

	Shape
}

// round returns a fault of that kind and, most of the time, others beside it.
func (p planner) round(first Kind) []Fault {
	if first == PowerLoss {
		return []Fault{p.powerLoss()}
	}
	faults := []Fault{p.fault(first)}
	var others []Kind
	for _, k := range p.Faults {
		// Two cuts at once would be one that nobody planned.
		if k != PowerLoss && (!k.cuts() || !first.cuts()) {
			others = append(others, k)
		}
	}
	for range p.IntN(3) {
		if len(others) == 0 {
			break
		}
		next := others[p.IntN(len(others))]
		faults = append(faults, p.fault(next))
		if next.cuts() {
			others = slices.DeleteFunc(others, Kind.cuts)
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return int(a.At - b.At) })
	return faults
}

func (p planner) fault(kind Kind) Fault {
	f := Fault{Kind: kind, At: p.between(0, p.Strike/3), Lasts: p.between(p.Strike/4, p.Strike*5/6)}
	order := p.Perm(p.Nodes)
	switch kind {
	case Pause:
		longest := p.LongestPause / 3
		if p.IntN(5) == 0 {
			longest = p.LongestPause
		}
		f.Lasts = p.between(time.Second, max(longest, 2*time.Second))
		f.Nodes, f.Leader = order, p.IntN(3) == 0
	case CutHalves:
		f.Nodes = order[:1+p.IntN(p.Nodes/2)]
	case CutOneWay:
		f.Nodes, f.Leader, f.Inward = order[:1], p.IntN(3) == 0, p.IntN(2) == 0
	case CutPairs:
		f.Pairs = p.pairs(order)
	case CutLeader:
		f.Nodes, f.Leader = order[:1], true
	case CutOne:
		f.Nodes = order[:1]
	default:
		f.Nodes, f.Leader = order, p.IntN(3) == 0
	}
	switch kind {
	case Slow:
		f.Weather = rig.Weather{Delay: p.between(20*time.Millisecond, slowest), Lost: 1 + p.IntN(10), Doubled: p.IntN(5), HeldUp: p.IntN(10), Seed: p.Uint64()}
	case ClockStep:
		f.Step = time.Second * time.Duration(1+p.IntN(1<<p.IntN(13))) // an hour at most, and mostly far less
		if p.IntN(2) == 0 {
			f.Step = -f.Step
		}
	default:
	}
	return f
}

// powerLoss kills all and starts them one after the other, or some of them at once.
func (p planner) powerLoss() Fault {
	f := Fault{Kind: PowerLoss, At: p.between(p.Strike/3, p.Strike/2), Nodes: p.Perm(p.Nodes)}
	for range f.Nodes {
		f.Starts = append(f.Starts, p.between(0, p.Strike/2))
	}
	slices.Sort(f.Starts)
	f.Lasts = f.Starts[len(f.Starts)-1]
	return f
}

// pairs returns neighbors of a ring: of a small one a single pair, or else all would be alone.
func (p planner) pairs(ring []int) [][2]int {
	if len(ring) < 4 {
		return [][2]int{{ring[0], ring[1]}}
	}
	var pairs [][2]int
	for i, node := range ring {
		pairs = append(pairs, [2]int{node, ring[(i+1)%len(ring)]})
	}
	return pairs[:1+p.IntN(len(pairs))]
}

func (p planner) between(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(p.Int64N(int64(most-least)))
}
