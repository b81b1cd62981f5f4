package runtime

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

const mib = 1 << 20

// buffer is an io.Writer that a test reads while the guest still writes.
type buffer struct {
	mu   sync.Mutex // guards data
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data.Len() > mib { // a flood is not kept
		return len(p), nil
	}
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

func newEngine(tb testing.TB) *Engine {
	tb.Helper()
	e, err := New(context.Background(), Config{CacheDir: filepath.Join(os.TempDir(), "wasmatrix-test-compiled")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return e
}

func compileBytes(e *Engine, module []byte) (*Module, error) {
	return e.Compile(context.Background(), fmt.Sprintf("sha256:%x", sha256.Sum256(module)), func(context.Context) ([]byte, error) { return module, nil })
}

func compile(tb testing.TB, e *Engine, path string) *Module {
	tb.Helper()
	module, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := compileBytes(e, module)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Release)
	return m
}

// run runs a guest with arguments and returns how it ended and what it printed.
func run(t *testing.T, e *Engine, m *Module, s Spec, args ...string) (Exit, string) {
	t.Helper()
	var out buffer
	s.Args = append([]string{"guest"}, args...)
	s.Stdout, s.Stderr = &out, &out
	if s.MemoryLimit == 0 {
		s.MemoryLimit = 64 * mib
	}
	i, err := e.Instantiate(t.Context(), m, s)
	if err != nil {
		t.Fatal(err)
	}
	return i.Run(t.Context()), out.String()
}

func TestGuestGetsArgumentsAndEnvironmentAndItsExitCodeIsKept(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	exit, out := run(t, e, m, Spec{Env: map[string]string{"FLAVOR": "blue"}}, "args", "env", "FLAVOR", "err", "oh", "exit", "7")
	if exit != (Exit{HasCode: true, Code: 7}) {
		t.Errorf("exit %+v", exit)
	}
	for _, want := range []string{"0=guest", "FLAVOR=blue", "oh"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	if exit, out := run(t, e, compile(t, e, guest.Go(t, "../examples/hello")), Spec{}, "x"); exit != (Exit{HasCode: true}) || !strings.Contains(out, "argument: x") {
		t.Errorf("Go guest: %+v\n%s", exit, out)
	}
}

func TestTrapsAreTold(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	for verb, want := range map[string]string{
		"trap":    "wasm trap: unreachable executed in func ",
		"divide":  "wasm trap: integer divide by zero in func ",
		"stray":   "wasm trap: out of bounds memory access in func ",
		"recurse": "in func recurse",
	} {
		t.Run(verb, func(t *testing.T) {
			exit, _ := run(t, e, m, Spec{}, verb)
			if exit.HasCode || !strings.HasPrefix(exit.Trap, "wasm trap: ") || !strings.Contains(exit.Trap, want) {
				t.Fatalf("%+v, want %q", exit, want)
			}
		})
	}
}

func TestFrameNamesLoseTheirTypes(t *testing.T) {
	for line, want := range map[string]string{
		"\t.main.run(i32,i32) i32":          "main.run",
		"\t.main.(*server).serve(i64)":      "main.(*server).serve",
		"\t.$12() (i32,i64)":                "$12",
		"\twasi_snapshot.fd_write(i32) i32": "wasi_snapshot.fd_write",
		"something else":                    "something else",
	} {
		if got := frameName(line); got != want {
			t.Errorf("frameName(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestAnythingIsInterrupted(t *testing.T) {
	e := newEngine(t)
	actor := compile(t, e, guest.Actor(t))
	ticker := compile(t, e, guest.Go(t, "../examples/ticker"))
	for name, c := range map[string]struct {
		m    *Module
		args []string
	}{
		"spin": {actor, []string{"spin"}}, "sleep": {actor, []string{"forever"}}, "flood": {actor, []string{"flood"}},
		"allocate": {actor, []string{"allocate"}}, "Go sleep": {ticker, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out buffer
			i, err := e.Instantiate(t.Context(), c.m, Spec{Args: append([]string{"guest"}, c.args...), MemoryLimit: 64 * mib, Stdout: &out})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan Exit, 1)
			go func() { ended <- i.Run(ctx) }()
			select {
			case exit := <-ended:
				t.Fatalf("ended by itself: %+v", exit)
			case <-time.After(300 * time.Millisecond):
			}
			cancel()
			began := time.Now()
			select {
			case exit := <-ended:
				if !exit.Interrupted {
					t.Fatalf("%+v", exit)
				}
				t.Logf("ended %s after it was told to", time.Since(began))
			case <-time.After(30 * time.Second):
				t.Fatal("still running 30 s after it was told to end")
			}
		})
	}
}

func TestMemoryEndsAtItsLimit(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	if exit, _ := run(t, e, m, Spec{MemoryLimit: 8 * mib}, "touch", "6"); exit != (Exit{HasCode: true}) {
		t.Errorf("6 of 8 MiB: %+v", exit)
	}
	if exit, _ := run(t, e, m, Spec{MemoryLimit: 8 * mib}, "touch", "9"); exit != (Exit{HasCode: true, Code: 9}) {
		t.Errorf("9 of 8 MiB: %+v; want malloc to fail, and nothing worse", exit)
	}
	var tooBig *InvalidModuleError
	_, err := e.Instantiate(t.Context(), m, Spec{MemoryLimit: pageBytes})
	if !errors.As(err, &tooBig) || !strings.Contains(err.Error(), "--memory") {
		t.Errorf("a limit below what the module starts with: %v", err)
	}
}

func leb(n uint32) []byte {
	var out []byte
	for {
		b := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func section(id byte, body ...byte) []byte {
	return append(append([]byte{id}, leb(uint32(len(body)))...), body...)
}

// tiny builds a module by hand: its one function is empty.
func tiny(sections ...[]byte) []byte {
	module := []byte("\x00asm\x01\x00\x00\x00")
	module = append(module, section(1, 1, 0x60, 0, 0)...) // type 0: func()
	for _, s := range sections {
		module = append(module, s...)
	}
	return module
}

var (
	oneFunction = section(3, 1, 0)
	emptyCode   = section(10, 1, 2, 0, 0x0b)
	exportStart = section(7, append([]byte{1, 6}, "_start\x00\x00"...)...)
)

func TestModulesThatCannotRunAreRefusedInOneSentence(t *testing.T) {
	e := newEngine(t)
	good := tiny(oneFunction, exportStart, emptyCode)
	if m, err := compileBytes(e, good); err != nil {
		t.Fatalf("the good one: %v", err)
	} else {
		m.Release()
	}
	imported := section(2, append([]byte{1, 3}, "env\x04grow\x00\x00"...)...)
	loops := slices.Concat([]byte{0}, bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 25_000), []byte{0x0b})
	for name, c := range map[string]struct {
		module []byte
		want   string
	}{
		"empty":       {nil, "empty"},
		"text":        {[]byte("#!/bin/sh\n"), "no WebAssembly module"},
		"head":        {good[:6], "truncated"},
		"truncated":   {good[:len(good)-3], "the module is"},
		"component":   {[]byte("\x00asm\x0d\x00\x01\x00"), "component (WASI 0.2)"},
		"version":     {[]byte("\x00asm\x02\x00\x00\x00"), "version 2"},
		"import":      {tiny(imported, oneFunction, section(7, append([]byte{1, 6}, "_start\x00\x01"...)...), emptyCode), "imports env.grow"},
		"no _start":   {tiny(oneFunction, emptyCode), "no _start"},
		"damaged":     {tiny(oneFunction, exportStart, section(10, 1, 2, 0, 0xff)), "damaged"},
		"much memory": {tiny(oneFunction, section(5, append([]byte{1, 0}, leb(65537)...)...), exportStart, emptyCode), "damaged"},
		"branches":    {tiny(oneFunction, exportStart, section(10, slices.Concat([]byte{1}, leb(uint32(len(loops))), loops)...)), "function 0 of those that it defines has 75000 branches"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compileBytes(e, c.module)
			var refused *InvalidModuleError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one sentence with %q", err, c.want)
			}
		})
	}
}

// Wherever a module is cut, its outline tells, unless whole sections remain: then compiling tells.
func TestOutlineTellsWhatIsCutOff(t *testing.T) {
	sections := [][]byte{oneFunction, exportStart, emptyCode}
	whole := tiny(sections...)
	ends := map[int]bool{8: true}
	for n := range len(sections) + 1 {
		ends[len(tiny(sections[:n]...))] = true
	}
	for cut := 8; cut <= len(whole); cut++ {
		for piece := 1; piece <= 9; piece++ {
			err := outline(whole[:cut], piece)
			var refused *InvalidModuleError
			switch {
			case ends[cut] && err != nil:
				t.Errorf("whole sections up to %d, in pieces of %d: %v", cut, piece, err)
			case !ends[cut] && (!errors.As(err, &refused) || !strings.Contains(err.Error(), "truncated")):
				t.Errorf("cut at %d, in pieces of %d: %v", cut, piece, err)
			}
		}
	}
	if err := outline(append(slices.Clone(whole), 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f), 4); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a section of more than 32 bits: %v", err)
	}
}

// outline passes a module through an Outline in pieces.
func outline(module []byte, piece int) error {
	o := &Outline{}
	for part := range slices.Chunk(module, piece) {
		_, _ = o.Write(part) // never fails
	}
	return o.Close()
}

// A memory that is not exported does not show before instantiation.
func TestHiddenMemoryAboveTheLimitIsRefused(t *testing.T) {
	e := newEngine(t)
	m, err := compileBytes(e, tiny(oneFunction, section(5, append([]byte{1, 0}, leb(200)...)...), exportStart, emptyCode))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	var tooBig *InvalidModuleError
	if _, err := e.Instantiate(t.Context(), m, Spec{MemoryLimit: mib}); !errors.As(err, &tooBig) || !strings.Contains(err.Error(), "13MiB") {
		t.Fatalf("got %v, want a refusal that asks for 13MiB", err)
	}
}

func TestOneCompilationServesAllWhoWaitForIt(t *testing.T) {
	e := newEngine(t)
	module, err := os.ReadFile(guest.Actor(t))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	loads := 0
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if n%4 == 0 {
				cancel() // some give up at once, which must not disturb the others
			}
			defer cancel()
			m, err := e.Compile(ctx, "one", func(context.Context) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				loads++
				return module, nil
			})
			if err == nil {
				m.Release()
			} else if n%4 != 0 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if loads != 1 {
		t.Fatalf("loaded %d times", loads)
	}
}

func TestFailedCompilationIsTriedAgain(t *testing.T) {
	e := newEngine(t)
	down := errors.New("the disk is away")
	if _, err := e.Compile(t.Context(), "x", func(context.Context) ([]byte, error) { return nil, down }); !errors.Is(err, down) {
		t.Fatalf("got %v", err)
	}
	m, err := e.Compile(t.Context(), "x", func(context.Context) ([]byte, error) { return tiny(oneFunction, exportStart, emptyCode), nil })
	if err != nil {
		t.Fatal(err)
	}
	m.Release()
}

// Many instances start, end and are interrupted at the same time, and nothing of them is left.
func TestHammerLeavesNothingBehind(t *testing.T) {
	e := newEngine(t)
	m := compile(t, e, guest.Actor(t))
	before := goruntime.NumGoroutine()
	var wg sync.WaitGroup
	places := make(chan struct{}, 64)
	for n := range 600 {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			verbs := [][]string{{"exit", "3"}, {"forever"}, {"trap"}, {"say", "hello"}}[n%4]
			i, err := e.Instantiate(ctx, m, Spec{Args: append([]string{"guest"}, verbs...), MemoryLimit: mib, Stdout: &buffer{}})
			if err != nil {
				t.Error(err)
				return
			}
			if n%4 == 1 {
				time.AfterFunc(time.Duration(n%7)*time.Millisecond, cancel)
			}
			exit := i.Run(ctx)
			if ok := []bool{exit.Code == 3, exit.Interrupted, exit.Trap != "", exit == Exit{HasCode: true}}[n%4]; !ok {
				t.Errorf("%v: %+v", verbs, exit)
			}
		})
	}
	wg.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for goruntime.NumGoroutine() > before+2 {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", goruntime.NumGoroutine(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(tiny(oneFunction, exportStart, emptyCode))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Add([]byte{})
	e, err := New(context.Background(), Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, module []byte) {
		m, err := compileBytes(e, module)
		var refused *InvalidModuleError
		switch {
		case err == nil:
			m.Release()
			if err := outline(module, 1+len(module)/3); err != nil {
				t.Fatalf("compiles, and its outline says %v", err)
			}
		case !errors.As(err, &refused):
			t.Fatalf("outside bytes gave %v, which blames this node", err)
		}
	})
}

func BenchmarkInstantiateAndRun(b *testing.B) {
	e := newEngine(b)
	for name, path := range map[string]string{"C": guest.Actor(b), "Go": guest.Go(b, "../examples/hello")} {
		m := compile(b, e, path)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				i, err := e.Instantiate(b.Context(), m, Spec{Args: []string{"guest"}, MemoryLimit: 64 * mib})
				if err != nil {
					b.Fatal(err)
				}
				if exit := i.Run(b.Context()); exit != (Exit{HasCode: true}) {
					b.Fatalf("%+v", exit)
				}
			}
		})
	}
}
