package chaos

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPlanIsAFunctionOfItsSeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		s := Shape{
			Nodes: rapid.IntRange(2, 7).Draw(t, "nodes"), Rounds: rapid.IntRange(1, 20).Draw(t, "rounds"),
			Strike: 20 * time.Second, LongestPause: time.Minute, Faults: Faults,
		}
		plan := Plan(seed, s)
		if !reflect.DeepEqual(plan, Plan(seed, s)) {
			t.Fatal("two plans of one seed differ")
		}
		longer := s
		longer.Rounds++
		if !reflect.DeepEqual(plan, Plan(seed, longer)[:s.Rounds]) {
			t.Fatal("a longer storm begins otherwise")
		}
		for _, r := range plan {
			checkRound(t, s, r)
		}
	})
}

func TestEachKindOfFaultLeadsARoundInTurn(t *testing.T) {
	s := Shape{Nodes: 5, Rounds: len(Faults), Strike: time.Second, LongestPause: time.Second, Faults: Faults}
	led := map[Kind]bool{}
	for _, r := range Plan(1, s) {
		for _, f := range r.Faults {
			led[f.Kind] = true
		}
	}
	for _, kind := range s.Faults {
		if !led[kind] {
			t.Errorf("%d rounds have no %s", s.Rounds, kind)
		}
		if injectors[kind] == nil {
			t.Errorf("nobody carries out %s", kind)
		}
	}
}

// checkRound checks what the nemesis relies on.
func checkRound(t *rapid.T, s Shape, r Round) {
	t.Helper()
	cuts := 0
	for _, f := range r.Faults {
		if f.Kind.cuts() {
			cuts++
		}
		if f.Kind == PowerLoss && (len(r.Faults) != 1 || len(f.Nodes) != s.Nodes || len(f.Starts) != s.Nodes) {
			t.Fatalf("round %d: %+v", r.Number, r.Faults)
		}
		if f.Kind == CutHalves && 2*len(f.Nodes) > s.Nodes {
			t.Fatalf("%s is no minority of %d", f, s.Nodes)
		}
		if f.At < 0 || f.Lasts < 0 || f.At+f.Lasts > s.Strike+s.LongestPause {
			t.Fatalf("%s in a round of %s", f, s.Strike)
		}
		if (f.Kind == Slow) != (f.Weather.Delay > 0 && f.Weather.Delay <= slowest && f.Weather.Lost > 0) {
			t.Fatalf("%s in weather %+v", f, f.Weather)
		}
		if (f.Kind == ClockStep) != (f.Step != 0) || f.Step%time.Second != 0 {
			t.Fatalf("%s steps by %s", f, f.Step)
		}
		for _, n := range f.Nodes {
			if n < 0 || n >= s.Nodes {
				t.Fatalf("%s among %d nodes", f, s.Nodes)
			}
		}
	}
	if cuts > 1 {
		t.Fatalf("round %d cuts the network %d times", r.Number, cuts)
	}
}
