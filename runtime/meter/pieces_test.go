package meter

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"
)

const (
	memoryPages   = 6
	tableElements = 2*pieceElements + 100
	segmentSize   = 3*pieceBytes + 5
)

// moving returns a module whose function f executes an instruction that moves what its three operands say. g looks into its table, which r
// makes that again into which s sets.
func moving(what byte, op ...byte) []byte {
	const referenceTo = typeExternref
	code := append(append([]byte{0, opLocalGet, 0, opLocalGet, 1, opLocalGet, 2}, op...), opEnd)
	get := []byte{0, opLocalGet, 0, 0x25, 0, opEnd}
	set := []byte{0, opLocalGet, 0, opLocalGet, 1, 0x26, 1, opEnd}
	reset := slices.Concat([]byte{0, opI32Const, 0, opI32Const, 0, opI32Const}, appendS64(nil, tableElements), []byte{opMisc, miscTableCopy, 0, 1, opEnd})
	segment := make([]byte, segmentSize)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(segment) // never fails
	return build(
		[]byte{secType, 4, typeFunc, 3, typeI32, what, typeI32, 0, typeFunc, 1, typeI32, 1, referenceTo, typeFunc, 2, typeI32, referenceTo, 0, typeFunc, 0, 0},
		[]byte{secFunction, 4, 0, 1, 2, 3},
		slices.Concat([]byte{secTable, 2, referenceTo, 0}, appendU32(nil, tableElements), []byte{referenceTo, 0}, appendU32(nil, tableElements)),
		[]byte{5, 1, 0, memoryPages},
		[]byte{secExport, 5, 1, 'f', 0, 0, 1, 'g', 0, 1, 1, 's', 0, 2, 1, 'r', 0, 3, 1, 'm', 2, 0},
		slices.Concat([]byte{secElement, 1, 5, referenceTo}, appendU32(nil, tableElements), bytes.Repeat([]byte{opRefNull, referenceTo, opEnd}, tableElements)),
		[]byte{secCount, 1},
		appendSized(appendSized(appendSized(appendSized([]byte{secCode, 4}, code), get), set), reset),
		append([]byte{secData, 1, 1}, appendSized(nil, segment)...),
	)
}

// What is moved in pieces is moved as by the instruction, and what is out of bounds moves nothing.
func TestPiecesMoveWhatTheInstructionMoves(t *testing.T) {
	for name, c := range map[string]struct {
		wasm []byte
		size uint32 // of what it is moved to
	}{
		"memory.fill": {moving(typeI32, opMisc, miscMemoryFill, 0), memoryPages << 16},
		"memory.copy": {moving(typeI32, opMisc, miscMemoryCopy, 0, 0), memoryPages << 16},
		"memory.init": {moving(typeI32, opMisc, miscMemoryInit, 0, 0), segmentSize},
		"table.fill":  {moving(typeExternref, opMisc, miscTableFill, 0), tableElements},
		"table.copy":  {moving(typeI32, opMisc, miscTableCopy, 0, 0), tableElements},
		"table.init":  {moving(typeI32, opMisc, miscTableInit, 0, 0), tableElements},
	} {
		t.Run(name, func(t *testing.T) {
			var both []api.Module
			for _, wasm := range [][]byte{c.wasm, rewritten(t, c.wasm)} {
				m, err := (&budget{quantum: 1, left: 1 << 60}).instantiate(t, wasm)
				if err != nil {
					t.Fatal(err)
				}
				for at := range uint64(tableElements) {
					if _, err := m.ExportedFunction("s").Call(t.Context(), at, at+1); err != nil {
						t.Fatal(err)
					}
				}
				both = append(both, m)
			}
			rapid.Check(t, func(t *rapid.T) {
				near := rapid.OneOf(rapid.Uint32Range(0, c.size+100), rapid.SampledFrom([]uint32{0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, pieceElements, c.size, c.size - 1, 1<<32 - 1}))
				args := []uint64{uint64(near.Draw(t, "to")), uint64(near.Draw(t, "from or value")), uint64(near.Draw(t, "length"))}
				looks := rapid.SliceOfN(rapid.Uint32Range(0, tableElements-1), 50, 50).Draw(t, "looks")
				var outcomes []string
				for _, m := range both {
					outcomes = append(outcomes, outcomeOf(m, args, looks))
				}
				before, _ := both[0].Memory().Read(0, both[0].Memory().Size())
				after, _ := both[1].Memory().Read(0, both[1].Memory().Size())
				if outcomes[0] != outcomes[1] || !bytes.Equal(before, after) {
					t.Fatalf("%v: %s before, %s after; the memory is the same: %v", args, outcomes[0], outcomes[1], bytes.Equal(before, after))
				}
			})
		})
	}
}

// outcomeOf has f move in a memory and a table where everything differs, and returns what came of it: the trap, and what is at some places
// of the table.
func outcomeOf(m api.Module, args []uint64, looks []uint32) string {
	ctx := context.Background()
	data, _ := m.Memory().Read(0, m.Memory().Size())
	_, _ = rand.NewChaCha8([32]byte{byte(args[0]), byte(args[1])}).Read(data) // never fails
	if _, err := m.ExportedFunction("r").Call(ctx); err != nil {
		return err.Error()
	}
	get := m.ExportedFunction("g")
	_, err := m.ExportedFunction("f").Call(ctx, args...)
	said := "no trap"
	if err != nil {
		said, _, _ = strings.Cut(err.Error(), "\n")
	}
	var found []uint64
	near := []uint32{uint32(args[0]), uint32(args[0] + args[2]), uint32(args[0]) + pieceElements, uint32(args[0]) - 1, uint32(args[0]+args[2]) - 1}
	for _, at := range append(near, looks...) {
		if at < tableElements {
			result, _ := get.Call(ctx, uint64(at))
			found = append(found, result...)
		}
	}
	return fmt.Sprint(said, found)
}

// Data of more than a mebibyte is cut, and goes where it went, in the order in which it went there; and who names segments finds them.
func TestLongDataSegmentsAreCut(t *testing.T) {
	random := rand.NewChaCha8([32]byte{5})
	long, passive := make([]byte, 2*segmentBytes+77), make([]byte, 100)
	_, _ = random.Read(long)    // never fails
	_, _ = random.Read(passive) // neither
	wasm := build(
		[]byte{secType, 1, typeFunc, 1, typeI32, 1, typeI32}, []byte{secFunction, 1, 0}, []byte{5, 1, 0, 40},
		[]byte{secExport, 2, 1, 'f', 0, 0, 1, 'm', 2, 0}, []byte{secCount, 3},
		appendSized([]byte{secCode, 1}, []byte{0, opI32Const, 0, opI32Const, 0, opI32Const, 20, opMisc, miscMemoryInit, 2, 0, opMisc, miscDataDrop, 2,
			opI32Const, 30, opI32Const, 0, opI32Const, 20, opMisc, miscMemoryInit, 2, 0, opLocalGet, 0, opEnd}),
		slices.Concat([]byte{secData, 3}, appendSized(offsetAt([]byte{0}, 1000), long), appendSized(offsetAt([]byte{0}, 1000+2*segmentBytes-5), []byte("overlapping")), appendSized([]byte{1}, passive)),
	)
	if m, err := parse(wasm); err != nil || !slices.Equal(m.data, []uint32{0, 3, 4, 5}) {
		t.Fatalf("segments are moved to %v, %v", m.data, err)
	}
	out := rewritten(t, wasm)
	var memories [][]byte
	for _, code := range [][]byte{wasm, out} {
		m, err := (&budget{quantum: 1, left: 1 << 60}).instantiate(t, code)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.ExportedFunction("f").Call(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "out of bounds memory access") {
			t.Errorf("what was dropped can be used: %v", err)
		}
		memory, _ := m.Memory().Read(0, m.Memory().Size())
		memories = append(memories, memory)
	}
	if !bytes.Equal(memories[0], memories[1]) {
		t.Error("the memory differs")
	}
}

// Tables are bounded together, and one that starts with more is refused.
func TestTablesAreBounded(t *testing.T) {
	module := func(tables ...byte) []byte {
		return build([]byte{secCustom, 1, 'x'}, append([]byte{secTable}, tables...))
	}
	for what, c := range map[string]struct{ before, after []byte }{
		"one without a bound":          {module(1, typeFuncref, 0, 10), module(1, typeFuncref, 1, 10, 100)},
		"one with a higher bound":      {module(1, typeFuncref, 1, 10, 120), module(1, typeFuncref, 1, 10, 100)},
		"one with a lower bound":       {module(1, typeFuncref, 1, 10, 20), module(1, typeFuncref, 1, 10, 20)},
		"two that share what is left":  {module(2, typeFuncref, 0, 10, typeExternref, 0, 30), module(2, typeFuncref, 1, 10, 40, typeExternref, 1, 30, 60)},
		"one that grows, one that not": {module(2, typeFuncref, 0, 10, typeExternref, 1, 30, 30), module(2, typeFuncref, 1, 10, 70, typeExternref, 1, 30, 30)},
		"none":                         {module(0), module(0)},
	} {
		if out, err := Bound(c.before, 100); err != nil || !bytes.Equal(out, c.after) {
			t.Errorf("%s: %x becomes %x (%v), want %x", what, c.before, out, err, c.after)
		}
	}
	for what, wasm := range map[string][]byte{
		"one that starts with more":   module(1, typeFuncref, 0, 101),
		"two that do so together":     module(2, typeFuncref, 0, 60, typeFuncref, 0, 60),
		"a segment with more":         build(append([]byte{secElement, 1, 1, 0, 101}, make([]byte, 101)...)),
		"a table where there was one": append(module(0), module(0)[len(header):]...),
		"a truncated one":             module(1, typeFuncref, 0),
		"too many":                    build(append([]byte{secTable}, slices.Concat(appendU32(nil, maxTables+1), bytes.Repeat([]byte{typeFuncref, 0, 0}, maxTables+1))...)),
	} {
		if _, err := Bound(wasm, 100); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}
