package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmatrix/wasmatrix/internal/guest"
	"github.com/wasmatrix/wasmatrix/runtime"
	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

const (
	// meteringRounds is how often each program runs in each way.
	meteringRounds = 11
	guestMemory    = 512 * mib
)

// program is one whose speed is compared. Its arguments make it run for some hundredths of a second where nothing interrupts it.
type program struct {
	name     string
	source   []string // below the root
	build    func(context.Context, string) (string, error)
	args     []string
	promised float64 // how much longer it may take with metering; 0 where only the median of all is promised
}

var (
	inC    = []string{"runtime", "meter", "testdata", "programs.c"}
	inGo   = []string{"bench", "testdata", "programs"}
	inMixC = []string{"bench", "testdata", "mix.c"}
	inRust = []string{"bench", "testdata", "words.rs"}
	inAS   = []string{"bench", "testdata", "life.ts"}
)

var programs = []program{
	{"byte loop in C", inC, guest.BuildC, []string{"bytes", "40"}, 1.5},
	{"recursive fib in C", inC, guest.BuildC, []string{"fib", "33"}, 1.6},
	{"Mandelbrot in C", inC, guest.BuildC, []string{"mandelbrot", "500"}, 1.6},
	{"sieve in Go", inGo, guest.BuildGo, []string{"sieve", "6"}, 1.3},
	{"SHA-256 in Go", inGo, guest.BuildGo, []string{"sha256", "3"}, 1.3},
	{"mix of lists, matrices, states and CRC in C", inMixC, guest.BuildC, []string{"150"}, 0},
	{"sieve in C", inC, guest.BuildC, []string{"sieve", "10"}, 0},
	{"SHA-256 in C", inC, guest.BuildC, []string{"sha256", "4"}, 0},
	{"matrix in C", inC, guest.BuildC, []string{"matrix", "15"}, 0},
	{"collatz in C", inC, guest.BuildC, []string{"collatz", "400000"}, 0},
	{"sort by calls through a pointer in C", inC, guest.BuildC, []string{"sort", "5"}, 0},
	{"list that is followed in C", inC, guest.BuildC, []string{"list", "800"}, 0},
	{"CRC bit by bit in C", inC, guest.BuildC, []string{"crc", "4000000"}, 0},
	{"words in a map in Rust", inRust, guest.BuildRust, []string{"200"}, 0},
	{"game of life in AssemblyScript", inAS, guest.BuildAssemblyScript, []string{"100"}, 0},
}

// metering measures what it costs that a guest can be interrupted, on programs that only compute: with metering, and with what wazero has
// for it. Native is the module in wazero without either. All ways have the same kind of memory, and take turns.
func metering(b *bench) {
	meteredPrograms(b)
	b.rewriting("a Go module", b.large(), meteringRounds)
	b.rewriting("CPython, in C", filepath.Join(b.root, "runtime", "meter", "testdata", "large", "node_modules", "@antonz", "python-wasi", "dist", "python.wasm"), 3)
}

func meteredPrograms(b *bench) {
	ways := b.ways()
	var all, allChecked []float64
	for _, p := range programs {
		wasm, err := p.build(context.Background(), filepath.Join(append([]string{b.root}, p.source...)...))
		if err != nil {
			b.reportAbsent(p.name+", metered", "no compiler", err)
			continue
		}
		took := b.byTurns(ways, wasm, p.args)
		native := float64(quantile(took[0], 0.5))
		metered, checked := float64(quantile(took[1], 0.5))/native, float64(quantile(took[2], 0.5))/native
		all, allChecked = append(all, metered), append(allChecked, checked)
		b.Logf("  %s: native %s", p.name, show(time.Duration(native), ""))
		b.reportTimes(p.name+", metered", metered, checked, p.promised)
	}
	if len(all) == 0 {
		b.Fatal("there is no compiler for any of the programs")
	}
	b.reportTimes(fmt.Sprintf("median of these %d programs, metered", len(all)), middle(all), middle(allChecked), 1.3)
}

// reportTimes adds a line to the table: how many times as long as native something takes, with what wazero has for it in brackets.
func (b *bench) reportTimes(what string, metered, checked, promised float64) {
	r := row{what: what, measured: fmt.Sprintf("%.2f times (%.1f)", metered, checked), kept: promised == 0 || metered <= promised}
	if promised != 0 {
		r.promised = "≤ " + show(promised, "times")
	}
	b.rows = append(b.rows, r)
	b.Logf("  %s: %s", what, r.measured)
}

// reportAbsent adds a line to the table for what this machine lacks the means for.
func (b *bench) reportAbsent(what, why string, err error) {
	b.rows = append(b.rows, row{what: what, measured: "not measured: " + why})
	b.Logf("  %s: %v", what, err)
}

func middle(sample []float64) float64 {
	sorted := slices.Sorted(slices.Values(sample))
	return sorted[len(sorted)/2]
}

// way is a way to run a module: it returns how often one is to be run.
type way func(wasm []byte, args []string) (once func() (time.Duration, string))

// ways returns native, metered as nodes do it, and wazero's own check.
func (b *bench) ways() []way {
	return []way{b.inWazero(wazero.NewRuntimeConfig()), b.inEngine(), b.inWazero(wazero.NewRuntimeConfig().WithCloseOnContextDone(true))}
}

// byTurns runs a program in each way, one after the other, and returns what each took.
func (b *bench) byTurns(ways []way, path string, args []string) [][]time.Duration {
	wasm, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var runs []func() (time.Duration, string)
	for _, w := range ways {
		runs = append(runs, w(wasm, append([]string{"program"}, args...)))
	}
	took := make([][]time.Duration, len(ways))
	for range meteringRounds {
		var said []string
		for n, once := range runs {
			t, out := once()
			took[n], said = append(took[n], t), append(said, out)
		}
		if len(slices.Compact(said)) != 1 || said[0] == "" {
			b.Fatalf("%v differ: %q", args, said)
		}
	}
	return took
}

// inWazero runs modules in wazero alone.
func (b *bench) inWazero(config wazero.RuntimeConfig) way {
	ctx, cancel := context.WithCancel(context.Background())
	r := wazero.NewRuntimeWithConfig(ctx, config)
	b.Cleanup(func() {
		cancel()
		_ = r.Close(context.WithoutCancel(ctx))
	})
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	return func(wasm []byte, args []string) func() (time.Duration, string) {
		compiled, err := r.CompileModule(ctx, wasm)
		if err != nil {
			b.Fatal(err)
		}
		return func() (time.Duration, string) {
			var out bytes.Buffer
			m, err := r.InstantiateModule(withMemory(ctx), compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions().WithArgs(args...).
				WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).WithStdout(&out).WithStderr(&out))
			if err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			_, err = m.ExportedFunction("_start").Call(ctx) // which ends with an exit code in some languages, and without in others
			took := time.Since(began)
			_ = m.Close(ctx)
			b.endedWell(err)
			return took, out.String()
		}
	}
}

// inEngine runs modules as a node runs them.
func (b *bench) inEngine() way {
	ctx := context.Background()
	e, err := runtime.New(ctx, runtime.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close(ctx) })
	return func(wasm []byte, args []string) func() (time.Duration, string) {
		m, err := e.Compile(ctx, fmt.Sprint(args), func(context.Context) ([]byte, error) { return wasm, nil })
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(m.Release)
		return func() (time.Duration, string) {
			var out bytes.Buffer
			i, err := e.Instantiate(ctx, m, runtime.Spec{Args: args, MemoryLimit: guestMemory, Stdout: &out, Stderr: &out})
			if err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			exit := i.Run(ctx)
			took := time.Since(began)
			if !exit.HasCode || exit.Code != 0 {
				b.Fatalf("%v ended with %+v: %s", args, exit, out.String())
			}
			return took, out.String()
		}
	}
}

// rewriting measures what it takes to put metering into a module, beside compiling what comes of that.
func (b *bench) rewriting(what, path string, rounds int) {
	what = "metering of " + what
	wasm, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b.reportAbsent(what, "make setup fetches the module", err)
		return
	}
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	var rewritten, compiled []time.Duration
	for range rounds {
		began := time.Now()
		metered, err := meter.Rewrite(wasm)
		rewritten = append(rewritten, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
		r := wazero.NewRuntime(ctx)
		began = time.Now()
		_, err = r.CompileModule(ctx, metered)
		compiled = append(compiled, time.Since(began))
		_ = r.Close(ctx)
		if err != nil {
			b.Fatal(err)
		}
	}
	share := 100 * float64(quantile(rewritten, 0.5)) / float64(quantile(compiled, 0.5))
	b.Logf("  rewriting %s: %s", path, show(quantile(rewritten, 0.5), ""))
	report(b, fmt.Sprintf("%s (%d KB), of the time that its compilation takes", what, len(wasm)/1000), share, 10, "%")
}

// endedWell fails unless a call of _start ended as a program that went well does.
func (b *bench) endedWell(err error) {
	var exited *sys.ExitError
	if err != nil && (!errors.As(err, &exited) || exited.ExitCode() != 0) {
		b.Fatal(err)
	}
}
