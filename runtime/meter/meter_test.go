package meter

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// build returns a module of sections, each an id and a body.
func build(sections ...[]byte) []byte {
	out := bytes.Clone(header)
	for _, s := range sections {
		out = appendSection(out, s[0], s[1:])
	}
	return out
}

// one returns a module with a table, a memory, a global and one function, exported as f, that takes and returns an i32.
func one(body ...byte) []byte {
	code := append([]byte{0}, body...)
	return build(
		[]byte{secType, 1, typeFunc, 1, typeI32, 1, typeI32},
		[]byte{secFunction, 1, 0},
		[]byte{secTable, 1, typeFuncref, 0, 0x90, 0x4e}, // 10,000 elements
		[]byte{5, 1, 0, 4},
		[]byte{secGlobal, 1, typeI32, 1, opI32Const, 7, opEnd},
		[]byte{secExport, 2, 1, 'f', 0, 0, 1, 'g', 3, 0},
		appendSized([]byte{secCode, 1}, code),
	)
}

// budget is a host that gives so much at a time, as long as something is left of it.
type budget struct {
	quantum, left int64
	spent         int64
	given         int64
}

var errSpent = errors.New("the budget is used up")

func (b *budget) instantiate(t testing.TB, wasm []byte) (api.Module, error) {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	i64 := []api.ValueType{api.ValueTypeI64}
	_, err := r.NewHostModuleBuilder(HostModule).NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
		b.spent += b.given - int64(stack[0])
		if b.spent > b.left {
			panic(errSpent)
		}
		b.given = b.quantum
		stack[0] = uint64(b.given)
	}), i64, i64).Export(HostRefill).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	return r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions())
}

func rewritten(t testing.TB, wasm []byte) []byte {
	t.Helper()
	out, err := Rewrite(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A guest knows how it is done, and names what the rewriting puts in.
func TestGuestCannotReachTheCounter(t *testing.T) {
	for what, wasm := range map[string][]byte{
		"reads the counter":            one(opGlobalGet, 1, opEnd),
		"resets the counter":           one(opI64Const, 0x7f, opGlobalSet, 1, opLocalGet, 0, opEnd),
		"calls the host":               one(opI64Const, 0, opCall, 1, opEnd),
		"takes the host's function":    one(opRefFunc, 1, 0x1a, opLocalGet, 0, opEnd),
		"uses the type of it":          one(opLocalGet, 0, opLocalGet, 0, opCallIndirect, 1, 0, opEnd),
		"has a block of that type":     one(opI64Const, 0, opBlock, 1, opEnd, 0x1a, opLocalGet, 0, opEnd),
		"reads a local behind its own": one(opLocalGet, 1, opEnd),
		// Of which wazero executes 24 01 behind the end of the block, where the whole could be read as one instruction and a nop.
		"hides that in a vector's":        one(opBlock, blockEmpty, opVector, 0x80, 0x00, opEnd, opGlobalSet, 1, opEnd, opLocalGet, 0, opEnd),
		"goes to the loop around its own": one(opLoop, blockEmpty, opBr, 2, opEnd, opLocalGet, 0, opEnd),
		"goes there if it likes":          one(opLoop, blockEmpty, opI32Const, 0, opBrIf, 2, opEnd, opLocalGet, 0, opEnd),
		"goes there by a table":           one(opLoop, blockEmpty, opI32Const, 0, opBrTable, 1, 0, 2, opEnd, opLocalGet, 0, opEnd),
		"calls what moves in pieces":      one(opLocalGet, 0, opLocalGet, 0, opLocalGet, 0, opCall, 2, opLocalGet, 0, opEnd),
		"exports the counter":             build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{secExport, 1, 1, 'c', 3, 0}, []byte{secCode, 1, 2, 0, opEnd}),
		"exports the host's function":     build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{secExport, 1, 1, 'c', 0, 1}, []byte{secCode, 1, 2, 0, opEnd}),
		"starts the host's function":      build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{secStart, 1}, []byte{secCode, 1, 2, 0, opEnd}),
		"has it in a table":               build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{4, 1, 0x70, 0, 1}, []byte{secElement, 1, 0, opI32Const, 0, opEnd, 1, 1}, []byte{secCode, 1, 2, 0, opEnd}),
		"begins a global with it":         build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{secGlobal, 1, 0x70, 0, opRefFunc, 1, opEnd}, []byte{secCode, 1, 2, 0, opEnd}),
		"begins one with the counter":     build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{secGlobal, 1, typeI64, 0, opGlobalGet, 1, opEnd}, []byte{secCode, 1, 2, 0, opEnd}),
		"puts data where it points to":    build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 0}, []byte{5, 1, 0, 1}, []byte{secCode, 1, 2, 0, opEnd}, []byte{secData, 1, 0, opGlobalGet, 0, opEnd, 0}),
		"declares a function of its type": build([]byte{secType, 1, typeFunc, 0, 0}, []byte{secFunction, 1, 1}, []byte{secCode, 1, 4, 0, opLocalGet, 0, opEnd}),
	} {
		if _, err := Rewrite(wasm); err == nil {
			t.Errorf("a module that %s is accepted", what)
		}
	}
}

// What the host reads the counter by is nobody else's, whatever there is of the module otherwise.
func TestReservedNamesAreRefused(t *testing.T) {
	types, code := []byte{secType, 1, typeFunc, 1, typeI64, 1, typeI64}, []byte{secCode, 1, 4, 0, opLocalGet, 0, opEnd}
	imports := func(name string, what ...byte) []byte {
		return append(appendSized(appendSized([]byte{secImport, 1}, []byte(HostModule)), []byte(name)), what...)
	}
	exports := func(what ...byte) []byte { return append(appendSized([]byte{secExport, 1}, []byte(Counter)), what...) }
	own := []byte{secGlobal, 1, typeI64, 1, opI64Const, 0, opEnd}
	for what, wasm := range map[string][]byte{
		"imports the host's function":             build(types, imports(HostRefill, 0, 0)),
		"imports the counter":                     build(types, imports("counter", 3, typeI64, 1)),
		"imports the counter by its whole name":   build(types, imports(Counter, 3, typeI64, 1)),
		"exports a global as the counter":         build(types, []byte{secFunction, 1, 0}, own, exports(3, 0), code),
		"exports a function as the counter":       build(types, []byte{secFunction, 1, 0}, exports(0, 0), code),
		"exports a memory as the counter":         build(types, []byte{secFunction, 1, 0}, []byte{5, 1, 0, 1}, exports(2, 0), code),
		"exports it and has no function":          build(own, exports(3, 0)),
		"exports it, its length in more bytes":    build(own, append(append([]byte{secExport, 1, 0x80 | byte(len(Counter)), 0}, Counter...), 3, 0)),
		"exports what it imports, as the counter": build(types, append(appendSized(appendSized([]byte{secImport, 1}, []byte("m")), []byte("g")), 3, typeI64, 1), exports(3, 0)),
	} {
		if _, err := Rewrite(wasm); !errors.Is(err, ErrReserved) {
			t.Errorf("a module that %s is answered with %v", what, err)
		}
	}
}

// Its counter is the one the host reads, whatever the module exports beside it.
func TestHostReadsTheCounter(t *testing.T) {
	b := &budget{quantum: 1000, left: 1 << 40}
	m, err := b.instantiate(t, rewritten(t, one(opLoop, blockEmpty, opLocalGet, 0, opI32Const, 1, 0x6b, 0x22, 0, opBrIf, 0, opEnd, opLocalGet, 0, opEnd)))
	if err != nil {
		t.Fatal(err)
	}
	counter := m.ExportedGlobal(Counter)
	used := func() int64 { return b.spent + b.given - int64(counter.Get()) }
	var costs []int64
	for _, rounds := range []uint64{1, 2, 3, 10_001, 20_001} {
		before := used()
		if _, err := m.ExportedFunction("f").Call(t.Context(), rounds); err != nil {
			t.Fatal(err)
		}
		costs = append(costs, used()-before)
	}
	if each := costs[1] - costs[0]; each <= 0 || costs[2] != costs[1]+each || costs[3] != costs[0]+10_000*each || costs[4] != costs[0]+20_000*each {
		t.Errorf("1, 2, 3, 10,001 and 20,001 rounds cost %v", costs)
	}
}

func TestEverythingEndsWithItsBudget(t *testing.T) {
	for what, body := range map[string][]byte{
		"a loop":           {opLoop, blockEmpty, opBr, 0, opEnd, opLocalGet, 0, opEnd},
		"a recursion":      {opLocalGet, 0, opCall, 0, opEnd},
		"filling for ever": {opLoop, blockEmpty, opI32Const, 0, opI32Const, 1, opI32Const, 0x80, 0x80, 0x10, opMisc, miscMemoryFill, 0, opBr, 0, opEnd, opLocalGet, 0, opEnd},
		"filling a table":  {opLoop, blockEmpty, opI32Const, 0, opRefNull, typeFuncref, opI32Const, 0x90, 0xce, 0, opMisc, miscTableFill, 0, opBr, 0, opEnd, opLocalGet, 0, opEnd},
		"copying for ever": {opLoop, blockEmpty, opI32Const, 0, opI32Const, 8, opI32Const, 0x80, 0x80, 0xc, opMisc, miscMemoryCopy, 0, 0, opBr, 0, opEnd, opLocalGet, 0, opEnd},
	} {
		b := &budget{quantum: 1000, left: 100_000}
		m, err := b.instantiate(t, rewritten(t, one(body...)))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := m.ExportedFunction("f").Call(t.Context(), 1); !errors.Is(err, errSpent) {
			if what == "a recursion" && err != nil && strings.Contains(err.Error(), "stack overflow") {
				continue
			}
			t.Errorf("%s ends with %v", what, err)
		}
		if b.spent > b.left+10_000 {
			t.Errorf("%s used %d, and there were %d", what, b.spent, b.left)
		}
	}
}

// The same work costs the same, in whatever pieces it is given.
func TestCostDoesNotDependOnTheQuantum(t *testing.T) {
	wasm, err := os.ReadFile(guest.C(t, filepath.Join("testdata", "programs.c")))
	if err != nil {
		t.Fatal(err)
	}
	wasm = rewritten(t, wasm)
	for name, much := range map[string]uint64{"fib": 15, "sieve": 1, "sort": 1, "collatz": 1000, "crc": 10_000} {
		var costs []int64
		for _, quantum := range []int64{1, 1000, 1_000_000} {
			b := &budget{quantum: quantum, left: 1 << 40}
			m, err := b.instantiate(t, wasm)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.ExportedFunction(name).Call(t.Context(), much); err != nil {
				t.Fatal(err)
			}
			costs = append(costs, b.spent)
		}
		if costs[0] == 0 || costs[0]-costs[1] > 1000 || costs[1] > costs[0] {
			t.Errorf("%s costs %v in quanta of 1, 1000 and 1000000", name, costs)
		}
	}
}

// Whoever reads a trap finds the functions of the source in it, and other custom sections are there as before.
func TestNamesAndCustomSectionsSurvive(t *testing.T) {
	names := appendSized(nil, []byte("name"))
	functions := append([]byte{2, 0}, appendSized(nil, []byte("first"))...)
	functions = append(append(functions, 1), appendSized(nil, []byte("second"))...)
	names = append(append(names, namesOfFunctions), appendSized(nil, functions)...)
	names = append(names, namesOfLabels, 9, 1, 0, 1, 0, 4, 'h', 'e', 'r', 'e')
	custom := append(appendSized(nil, []byte("mine")), 1, 2, 3)
	debug := append(appendSized(nil, []byte(".debug_line")), 1)
	wasm := build(
		[]byte{secType, 1, typeFunc, 0, 0}, append([]byte{secCustom}, custom...), []byte{secFunction, 2, 0, 0}, []byte{secExport, 1, 1, 'f', 0, 0},
		[]byte{secCode, 2, 4, 0, opCall, 1, opEnd, 3, 0, 0, opEnd},
		append([]byte{secCustom}, names...), append([]byte{secCustom}, debug...),
	)
	out := rewritten(t, wasm)
	if !bytes.Contains(out, custom) || bytes.Contains(out, debug) {
		t.Errorf("mine is there: %v; what says where things are in the code: %v", bytes.Contains(out, custom), bytes.Contains(out, debug))
	}
	if bytes.Contains(out, []byte("here")) {
		t.Error("a label is called what another was")
	}
	m, err := (&budget{quantum: 100, left: 1000}).instantiate(t, out)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.ExportedFunction("f").Call(t.Context())
	for _, want := range []string{"unreachable", "first", "second"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the trap does not tell of %q: %v", want, err)
		}
	}
}

// FuzzRewrite looks for bytes that the rewriting fails at, or that are a module before it and none after, or the other way round.
func FuzzRewrite(f *testing.F) {
	for _, seed := range [][]byte{
		one(opLocalGet, 0, opEnd), one(opLoop, blockEmpty, opBr, 0, opEnd, opLocalGet, 0, opEnd),
		one(opI32Const, 0, opI32Const, 1, opI32Const, 5, opMisc, miscMemoryFill, 0, opLocalGet, 0, opEnd), header,
		moving(typeI32, opMisc, miscTableInit, 0, 0),
	} {
		f.Add(seed)
	}
	r := wazero.NewRuntimeWithConfig(f.Context(), wazero.NewRuntimeConfigInterpreter())
	f.Fuzz(func(t *testing.T, wasm []byte) {
		wasm, err := Bound(wasm, 100_000)
		if err != nil {
			return // compiling it would take all memory there is
		}
		_, before := r.CompileModule(t.Context(), wasm)
		out, err := Rewrite(wasm)
		if errors.Is(err, errSpelling) {
			return // wazero does not mind
		}
		if err == nil {
			_, err = r.CompileModule(t.Context(), out)
		}
		if (before == nil) != (err == nil) {
			t.Errorf("before: %v\nafter: %v", before, err)
		}
	})
}

// A few bytes can speak of much that does not come, for which whoever compiles them would make room.
func TestNothingIsAnnouncedThatDoesNotCome(t *testing.T) {
	many := appendU32(nil, 1<<32-1)
	for id := range byte(secCount + 1) {
		if id == secCustom || id == secStart || id == secCount {
			continue
		}
		if out, err := Bound(build(append([]byte{id}, many...)), 100); err == nil {
			t.Errorf("section %d of %d is accepted: %x", id, uint32(1<<32-1), out)
		}
	}
	for what, section := range map[string][]byte{
		"parameters":    slices.Concat([]byte{secType, 1, typeFunc}, many),
		"results":       slices.Concat([]byte{secType, 1, typeFunc, 0}, many),
		"elements":      slices.Concat([]byte{secElement, 1, 1, 0}, many),
		"data":          slices.Concat([]byte{secData, 1, 1}, many),
		"locals":        append([]byte{secCode, 1}, appendSized(nil, slices.Concat([]byte{1}, many, []byte{typeI64, opEnd}))...),
		"code":          slices.Concat([]byte{secCode, 1}, many),
		"a long name":   append([]byte{secCustom}, many...),
		"a long export": slices.Concat([]byte{secExport, 1}, many),
	} {
		if out, err := Bound(build(section), 100); err == nil {
			t.Errorf("%s are accepted: %x", what, out)
		}
	}
	names := func(parts ...byte) []byte { return append(appendSized([]byte{secCustom}, []byte("name")), parts...) }
	for what, section := range map[string][]byte{
		"functions":       names(append([]byte{namesOfFunctions, 5}, many...)...),
		"locals":          names(append([]byte{namesOfLocals, 7, 1, 0}, many...)...),
		"no text":         names(nameOfModule, 2, 1, 0xff),
		"more than it is": names(namesOfFunctions, 9, 0),
	} {
		if out, err := Bound(build(section), 100); err != nil || len(out) != len(header) {
			t.Errorf("names of %s are kept: %x, %v", what, out, err)
		}
	}
}
