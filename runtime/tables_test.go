package runtime

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// growing is a module whose one table begins with so many elements, and which grows it as far as it goes. It traps where that is not
// all that an instance may have.
func growing(elements uint32) []byte {
	n := func(n uint32) []byte { return append([]byte{0x41}, sleb(n)...) }
	code := slices.Concat([]byte{0, 0x03, 0x40, 0xd0, 0x70}, n(10_000), []byte{0xfc, 15, 0}, n(1<<32-1), []byte{0x47, 0x0d, 0, 0x0b}, // until it answers -1
		[]byte{0xfc, 16, 0}, n(maxElements), []byte{0x47, 0x04, 0x40, 0x00, 0x0b, 0x0b})
	return tiny(oneFunction, section(4, slices.Concat([]byte{1, 0x70, 0}, leb(elements))...), exportStart, section(10, append(append([]byte{1}, leb(uint32(len(code)))...), code...)...))
}

func TestTablesEndWhereAnInstanceMayHaveNoMore(t *testing.T) {
	e := newEngine(t)
	m, err := compileBytes(e, growing(20_000))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	if exit, _ := run(t, e, m, Spec{}); !exit.HasCode || exit.Code != 0 {
		t.Errorf("metered, it ends with %+v", exit)
	}

	bounded, err := meter.Bound(growing(20_000), maxElements)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := e.compileChecked(t.Context(), bounded)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = compiled.Close(context.Background()) }()
	if exit, _ := run(t, e, &Module{engine: e, compiled: compiled}, Spec{}); !exit.HasCode || exit.Code != 0 {
		t.Errorf("not metered, it ends with %+v", exit)
	}
}

func TestTablesThatBeginTooLargeAreRefused(t *testing.T) {
	var refused *InvalidModuleError
	if _, err := compileBytes(newEngine(t), growing(maxElements+1)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "1,000,001 elements, more than the 1,000,000") {
		t.Errorf("it is answered with %v", err)
	}
}
