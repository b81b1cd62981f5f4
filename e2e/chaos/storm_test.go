package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

var (
	seed   = flag.Uint64("chaos.seed", 0, "the seed of the storm; 0 draws one")
	rounds = flag.Int("chaos.rounds", 0, "how many rounds the long storm has; 0 leaves it out")
	nodes  = flag.Int("chaos.nodes", 5, "how many nodes the long storm has")
	only   = flag.String("chaos.faults", "", "these kinds of faults only, with commas")
	goOn   = flag.Bool("chaos.on", false, "go on after a violation")
	keep   = flag.Bool("chaos.keep", false, "keep history, logs and data of a storm that found nothing, too")
)

func TestAShortStormLeavesNothingLostOrDouble(t *testing.T) {
	if *rounds > 0 {
		t.Skip("the long storm was asked for")
	}
	storm(t, Storm{
		Shape:   Shape{Nodes: 3, Rounds: 3, Strike: 8 * time.Second, LongestPause: 6 * time.Second, Faults: Faults},
		Clients: 3, CommandTimeout: 5 * time.Second, Aftermath: time.Second,
		FormsWithin: 30 * time.Second, SettlesWithin: 20 * time.Second, Watch: 2 * time.Second,
	})
}

// What `make chaos` runs.
func TestALongStormLeavesNothingLostOrDouble(t *testing.T) {
	if *rounds == 0 {
		t.Skip("it takes -chaos.rounds")
	}
	faults := Faults
	if *only != "" {
		faults = nil
		for kind := range strings.SplitSeq(*only, ",") {
			if injectors[Kind(kind)] == nil {
				t.Fatalf("-chaos.faults: there is no %q", kind)
			}
			faults = append(faults, Kind(kind))
		}
	}
	storm(t, Storm{
		Shape:   Shape{Nodes: *nodes, Rounds: *rounds, Strike: 30 * time.Second, LongestPause: time.Minute, Faults: faults},
		Clients: 4, CommandTimeout: 10 * time.Second, Aftermath: 5 * time.Second,
		FormsWithin: 2 * time.Minute, SettlesWithin: time.Minute, Watch: 4 * time.Second,
	})
}

func storm(t *testing.T, s Storm) {
	t.Helper()
	s.Seed, s.GoOn = *seed, *goOn
	for s.Seed == 0 {
		s.Seed = rand.Uint64N(1 << 32) // short enough to be typed
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("wasmatrix-chaos-%d-", s.Seed)) //nolint:usetesting // it outlives a test that failed
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || *keep {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Logf("-chaos.seed %d", s.Seed)
	s.Dir = dir
	if s.Product, err = rig.Build(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s.Module = guest.C(t, filepath.Join("testdata", "pulse.c"))
	began := time.Now()
	s.Run(t.Context(), t)
	t.Logf("%d rounds in %s", s.Shape.Rounds, time.Since(began).Round(time.Millisecond))
}
