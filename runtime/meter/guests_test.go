package meter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// Programs of each language do what they did: they print the same, end in the same way, and leave the same memory.
func TestGuestsOfEachLanguageDoTheSame(t *testing.T) {
	source := func(name string) string { return filepath.Join("testdata", "guests", name) }
	for language, path := range map[string]string{
		"Go": guest.Go(t, source("work")), "Rust": guest.Rust(t, source("work.rs")), "C": guest.C(t, source("work.c")), "AssemblyScript": guest.AssemblyScript(t, source("work.ts")),
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			trap := map[string]string{"Go": "exit code 2", "Rust": "unreachable", "C": "break_down", "AssemblyScript": "divide by zero"}[language]
			p := newProgram(t)
			p.compile(t, path)
			for argument, want := range map[string]string{"": "exit code 0", "exit": "exit code 3", "trap": trap} {
				before, after := p.run(t, p.plain, "work", argument), p.run(t, p.metered, "work", argument)
				if before != after {
					t.Errorf("work %s:\n%v\nbefore,\n%v\nafter", argument, before, after)
				}
				if !strings.Contains(after.end, want) {
					t.Errorf("work %s ends with %s, want %s", argument, after.end, want)
				}
			}
		})
	}
}

// program is a module, compiled as it is and with metering.
type program struct {
	runtime        wazero.Runtime
	plain, metered wazero.CompiledModule
}

// ending is what came of a run.
type ending struct{ output, end, memory string }

func (e ending) String() string { return fmt.Sprintf("%s\n%s\nmemory %s", e.output, e.end, e.memory) }

func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{runtime: wazero.NewRuntime(t.Context())}
	t.Cleanup(func() { _ = p.runtime.Close(context.Background()) })
	refilled(t, p.runtime, 10_000)
	wasi_snapshot_preview1.MustInstantiate(t.Context(), p.runtime)
	return p
}

func (p *program) compile(t *testing.T, path string) {
	t.Helper()
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if p.plain, err = p.runtime.CompileModule(t.Context(), wasm); err != nil {
		t.Fatal(err)
	}
	if p.metered, err = p.runtime.CompileModule(t.Context(), rewritten(t, wasm)); err != nil {
		t.Fatal(err)
	}
}

// run runs a program where clocks and randomness are the same each time.
func (p *program) run(t *testing.T, compiled wazero.CompiledModule, args ...string) ending {
	t.Helper()
	ctx := t.Context()
	var out bytes.Buffer
	m, err := p.runtime.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithArgs(args...).WithStdout(&out).WithStderr(&out).WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(ctx) }()
	_, err = m.ExportedFunction("_start").Call(ctx)
	e := ending{output: out.String(), end: "exit code 0", memory: digest(m.Memory())}
	var exited *sys.ExitError
	switch {
	case errors.As(err, &exited):
		e.end = fmt.Sprintf("exit code %d", exited.ExitCode())
	case err != nil:
		e.end = withoutPlaces(err.Error())
	}
	return e
}

// withoutPlaces takes away from a trap what metering changes: lines of the source, and indices of functions without a name.
func withoutPlaces(trap string) string {
	return regexp.MustCompile(`\$\d+`).ReplaceAllString(regexp.MustCompile(`(?m)^\t\t0x.*\n`).ReplaceAllString(trap, ""), "$$")
}

func digest(m api.Memory) string {
	all, _ := m.Read(0, m.Size())
	return fmt.Sprintf("%d %x", len(all), sha256.Sum256(all))
}
