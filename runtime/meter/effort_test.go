package meter

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// defining returns a module with these functions, each with so many locals.
func defining(locals uint32, bodies ...[]byte) []byte {
	code := appendU32([]byte{secCode}, uint32(len(bodies)))
	types := appendU32([]byte{secFunction}, uint32(len(bodies)))
	for _, b := range bodies {
		types = append(types, 0)
		code = appendSized(code, slices.Concat(appendU32([]byte{1}, locals), []byte{typeI32}, b, []byte{opEnd}))
	}
	return build([]byte{secType, 1, typeFunc, 0, 0}, types, code)
}

// What takes far longer to compile, or far more memory, than its size says is refused at once: 50 KB of empty loops took minutes, and
// 20 KB with a thousand locals 1.6 GB.
func TestFunctionsThatCanNotBeCompiledAreRefused(t *testing.T) {
	rep := func(n int, unit ...byte) []byte { return bytes.Repeat(unit, n) }
	each := func(n uint32, write ...byte) (all []byte) { // reads so many locals, perhaps right after writing them
		for local := range n {
			index := appendU32(nil, local)
			if len(write) > 0 {
				all = slices.Concat(all, write, index)
			}
			all = append(slices.Concat(all, []byte{opLocalGet}, index), 0x1a)
		}
		return all
	}
	for what, c := range map[string]struct {
		wasm []byte
		at   int // -1: it is compiled
	}{
		"few loops":                    {defining(1, rep(10_000, opLoop, blockEmpty, opEnd)), -1},
		"loops":                        {defining(1, rep(25_000, opLoop, blockEmpty, opEnd)), 0},
		"branches":                     {defining(1, rep(70_000, opLocalGet, 0, opBrIf, 0)), 0},
		"a table of branches":          {defining(1, slices.Concat([]byte{opLocalGet, 0, opBrTable}, appendU32(nil, 100_000), rep(100_001, 0))), 0},
		"loops in many functions":      {defining(1, slices.Repeat([][]byte{rep(10_000, opLoop, blockEmpty, opEnd)}, 5)...), 4},
		"locals and loops":             {defining(1000, append(rep(2000, opLoop, blockEmpty, opEnd), each(1000)...)), 0},
		"locals and few loops":         {defining(1000, append(rep(1000, opLoop, blockEmpty, opEnd), each(1000)...)), -1},
		"locals where they are set":    {defining(1000, append(rep(2000, opLoop, blockEmpty, opEnd), each(1000, opI32Const, 1, opLocalSet)...)), -1},
		"one local that is read often": {defining(1, append(rep(2000, opLoop, blockEmpty, opEnd), rep(1000, opLocalGet, 0, 0x1a)...)), -1},
		"a long one":                   {defining(1, rep(maxBody/2, opCall, 0)), 0},
		"long ones":                    {defining(1, slices.Repeat([][]byte{rep(maxBody/4, opCall, 0)}, 3)...), -1},
		"no such local":                {defining(1, append([]byte{opLocalGet}, appendU32(nil, 1<<32-1)...)), -1}, // which is said by whoever compiles it
		"what is not known":            {defining(1, rep(100_000, 0xff)), 0},
	} {
		_, err := Bound(c.wasm, 100)
		var large *TooLargeError
		switch {
		case c.at < 0 && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.at >= 0 && (!errors.As(err, &large) || large.Function != c.at):
			t.Errorf("%s: got %v, want function %d to be too large", what, err, c.at)
		}
	}
}
