package meter

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The specification's own tests, as they come with wazero.
const suites = "internal/integration_test/spectest"

// script is one file of the suite.
type script struct {
	Commands []command `json:"commands"`
}

type command struct {
	Type       string  `json:"type"`
	Line       int     `json:"line"`
	Name       string  `json:"name"`
	Filename   string  `json:"filename"`
	As         string  `json:"as"`
	ModuleType string  `json:"module_type"`
	Action     action  `json:"action"`
	Expected   []value `json:"expected"`
}

type action struct {
	Type   string  `json:"type"`
	Module string  `json:"module"`
	Field  string  `json:"field"`
	Args   []value `json:"args"`
}

type value struct {
	Type     string          `json:"type"`
	LaneType string          `json:"lane_type"`
	Value    json.RawMessage `json:"value"`
}

// A module that has metering in it does what it did before, and traps as it did before: for all that the specification tests.
func TestSpecificationHoldsWithMetering(t *testing.T) {
	dir := suitesDir(t)
	spectest, err := os.ReadFile(filepath.Join(dir, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob(filepath.Join(dir, "v[12]", "testdata", "*.json"))
	if err != nil || len(scripts) < 100 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(path)))+"/"+strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var s script
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Fatal(err)
			}
			features := api.CoreFeaturesV2
			if strings.Contains(path, "/v1/") {
				features = api.CoreFeaturesV1
			}
			plain, metered := newStage(t, features, spectest, nil), newStage(t, features, spectest, asRun)
			s.play(t, filepath.Dir(path), plain, metered)
		})
	}
}

func suitesDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), suites)
}

// play has both do the same, and compares what comes of it.
func (s script) play(t *testing.T, dir string, plain, metered *stage) {
	t.Helper()
	for n, c := range s.Commands {
		var before, after outcome
		switch c.Type {
		case "module", "assert_invalid", "assert_malformed", "assert_unlinkable", "assert_uninstantiable":
			if c.ModuleType == "text" || strings.HasSuffix(c.Filename, ".wat") {
				continue
			}
			wasm, err := os.ReadFile(filepath.Join(dir, c.Filename))
			if err != nil {
				t.Fatal(err)
			}
			as := s.registeredAs(n)
			before, after = plain.load(wasm, c, as), metered.load(wasm, c, as)
			if c.Type != "module" { // how it is said differs, where the rewriting finds it first
				if (before.err == "") != (after.err == "") {
					t.Errorf("line %d: %s: %q before, %q after", c.Line, c.Type, before.err, after.err)
				}
				continue
			}
		case "action", "assert_return", "assert_trap", "assert_exhaustion":
			before, after = plain.act(c.Action), metered.act(c.Action)
			if (before.err == "") != (c.Type == "action" || c.Type == "assert_return") {
				t.Errorf("line %d: without metering %s ends with %v", c.Line, c.Type, before)
			}
		case "register":
			continue // when it was loaded
		default:
			t.Fatalf("line %d: there is no command %q", c.Line, c.Type)
		}
		if before.String() != after.String() {
			t.Errorf("line %d: %s %s: %v before, %v after", c.Line, c.Type, c.Action.Field, before, after)
		}
	}
}

// registeredAs returns the name under which the module that is loaded at n is registered before the next.
func (s script) registeredAs(n int) string {
	for _, c := range s.Commands[n+1:] {
		switch {
		case c.Type == "register" && (c.Name == "" || c.Name == s.Commands[n].Name):
			return c.As
		case c.Type == "module" && s.Commands[n].Name == "":
			return ""
		}
	}
	return ""
}

// outcome is what came of a command.
type outcome struct {
	results []string
	err     string
}

func (o outcome) String() string {
	if o.err != "" {
		return "error: " + o.err
	}
	return fmt.Sprint(o.results)
}

// stage is a runtime, and the modules in it.
type stage struct {
	ctx     context.Context //nolint:containedctx // of one test
	runtime wazero.Runtime
	rewrite func([]byte) ([]byte, error)
	named   map[string]api.Module
	last    api.Module
}

func newStage(t *testing.T, features api.CoreFeatures, spectest []byte, rewrite func([]byte) ([]byte, error)) *stage {
	t.Helper()
	ctx := t.Context()
	s := &stage{ctx: ctx, runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features)), rewrite: rewrite, named: map[string]api.Module{}}
	t.Cleanup(func() { _ = s.runtime.Close(context.Background()) })
	refilled(t, s.runtime, 1000)
	if _, err := s.runtime.InstantiateWithConfig(ctx, spectest, wazero.NewModuleConfig().WithName("spectest")); err != nil {
		t.Fatal(err)
	}
	return s
}

// asRun is what becomes of a module before it is compiled.
func asRun(wasm []byte) ([]byte, error) {
	wasm, err := Bound(wasm, 1_000_000)
	if err != nil {
		return nil, err
	}
	return Rewrite(wasm)
}

// refilled gives a runtime a host that lets guests go on for ever, a little at a time.
func refilled(t testing.TB, r wazero.Runtime, quantum uint64) {
	t.Helper()
	i64 := []api.ValueType{api.ValueTypeI64}
	_, err := r.NewHostModuleBuilder(HostModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
			if int64(stack[0]) >= 0 {
				panic("called with something left")
			}
			stack[0] = quantum
		}), i64, i64).Export(HostRefill).Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stage) load(wasm []byte, c command, as string) (o outcome) {
	if s.rewrite != nil {
		var err error
		if wasm, err = s.rewrite(wasm); err != nil {
			return outcome{err: "rewrite: " + err.Error()}
		}
	}
	module, err := s.runtime.InstantiateWithConfig(s.ctx, wasm, wazero.NewModuleConfig().WithName(as).WithStartFunctions())
	if err != nil {
		return outcome{err: said(err)}
	}
	s.last = module
	if c.Name != "" {
		s.named[c.Name] = module
	}
	return outcome{}
}

func (s *stage) act(a action) outcome {
	module := s.last
	if a.Module != "" {
		module = s.named[a.Module]
	}
	if module == nil {
		return outcome{err: "there is no module"}
	}
	if a.Type == "get" {
		return outcome{results: []string{fmt.Sprint(module.ExportedGlobal(a.Field).Get())}}
	}
	f := module.ExportedFunction(a.Field)
	if f == nil {
		return outcome{err: "there is no function " + a.Field}
	}
	var args []uint64
	for _, v := range a.Args {
		args = append(args, v.bits()...)
	}
	results, err := f.Call(s.ctx, args...)
	if err != nil {
		return outcome{err: said(err)}
	}
	var o outcome
	types := f.Definition().ResultTypes()
	for n, r := range results {
		if len(types) == len(results) && types[n] != api.ValueTypeI32 && types[n] != api.ValueTypeI64 && types[n] != api.ValueTypeF32 &&
			types[n] != api.ValueTypeF64 && types[n] != api.ValueTypeExternref {
			r = min(r, 1) // a reference to a function is an address
		}
		o.results = append(o.results, strconv.FormatUint(r, 16))
	}
	return o
}

// said returns what an error says of the module, without where in the code that was.
func said(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// bits returns an argument as the runtime takes it.
func (v value) bits() []uint64 {
	if v.Type != "v128" {
		var text string
		if err := json.Unmarshal(v.Value, &text); err != nil {
			panic(err)
		}
		return []uint64{number(text, v.Type)}
	}
	var lanes []string
	if err := json.Unmarshal(v.Value, &lanes); err != nil {
		panic(err)
	}
	var low, high uint64
	width := 128 / len(lanes)
	for n, lane := range lanes {
		bits := number(lane, v.LaneType)
		if width < 64 {
			bits &= 1<<width - 1
		}
		if at := n * width; at < 64 {
			low |= bits << at
		} else {
			high |= bits << (at - 64)
		}
	}
	return []uint64{low, high}
}

func number(text, typ string) uint64 {
	switch {
	case text == "null" && typ == "funcref":
		return 0
	case text == "null":
		return 0
	case strings.HasPrefix(text, "nan:") && typ == "f32":
		return uint64(math.Float32bits(float32(math.NaN())))
	case strings.HasPrefix(text, "nan:"):
		return math.Float64bits(math.NaN())
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return n
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return uint64(n)
}
