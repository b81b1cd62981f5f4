package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/internal/guest"
	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// A trap deep in a guest's calls is told by the source's name of the function, metered or not; by its index where it has no name; and where
// the language tells of it by itself, that is right, too.
func TestTrapsNameTheFunctionsOfTheSource(t *testing.T) {
	e := newEngine(t)
	source := func(name string) string { return filepath.Join("meter", "testdata", "guests", name) }
	for language, c := range map[string]struct{ path, trap, output string }{
		"Go":             {guest.Go(t, source("work")), "", "main.breakDown"},
		"Rust":           {guest.Rust(t, source("work.rs")), "break_down", ""},
		"C":              {guest.C(t, source("work.c")), "wasm trap: integer divide by zero in func break_down", ""},
		"AssemblyScript": {guest.AssemblyScript(t, source("work.ts")), "wasm trap: integer divide by zero in func $", ""},
	} {
		t.Run(language, func(t *testing.T) {
			metered, said := run(t, e, compile(t, e, c.path), Spec{MemoryLimit: 256 * mib}, "trap")
			if !strings.Contains(metered.Trap, c.trap) || !strings.Contains(said, c.output) {
				t.Errorf("%+v\n%s", metered, said)
			}
			if c.trap == "" {
				return // it tells by itself
			}
			wasm, err := os.ReadFile(c.path)
			if err != nil {
				t.Fatal(err)
			}
			if wasm, err = meter.Bound(wasm, maxElements); err != nil {
				t.Fatal(err)
			}
			compiled, err := e.compileChecked(t.Context(), wasm)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = compiled.Close(context.Background()) }()
			if checked, _ := run(t, e, &Module{engine: e, compiled: compiled}, Spec{MemoryLimit: 256 * mib}, "trap"); checked != metered {
				t.Errorf("%+v metered, %+v not metered", metered, checked)
			}
		})
	}
}
