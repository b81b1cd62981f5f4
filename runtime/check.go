package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

const (
	maxModule = 256 << 20 // bytes
	pageBytes = 64 << 10
	// maxElements is how many elements the tables of an instance may have, together, of eight bytes each: as many as wasmer allows. A Go
	// module of 2.6 MB has 5,900, one of 10 MB 10,000, and CPython 5,900.
	maxElements = 1_000_000
	// The version field of a binary: of a core module, and of a component, whose upper half says
	// "layer 1" (the component model's Binary.md).
	coreVersion    = 1
	componentLayer = 1
	// An id and five bytes of LEB128, which hold 32 bits.
	maxSectionHead = 6
)

var magic = []byte("\x00asm")

// InvalidModuleError says in one sentence what a module is that can't run here, and what would work.
type InvalidModuleError struct{ Reason string }

func (e *InvalidModuleError) Error() string { return e.Reason }

func invalid(format string, args ...any) *InvalidModuleError {
	return &InvalidModuleError{Reason: fmt.Sprintf(format, args...)}
}

const wanted = "a core WebAssembly module for WASI preview 1 (such as GOOS=wasip1 GOARCH=wasm go build, or clang --target=wasm32-wasi, makes)"

// Check looks at the head of a module, without compiling it. Errors are [*InvalidModuleError].
func Check(module []byte) error {
	switch {
	case len(module) == 0:
		return invalid("the module is empty: want %s", wanted)
	case len(module) > maxModule:
		return invalid("the module has %s, more than the %s that are taken: strip its debug information, or split it", humanize.IBytes(uint64(len(module))), humanize.IBytes(maxModule))
	case len(module) < 8 && bytes.HasPrefix(module, magic[:min(4, len(module))]):
		return invalid("the module is truncated to %d bytes: build or copy it again", len(module))
	case !bytes.HasPrefix(module, magic):
		return invalid("this is no WebAssembly module (it begins with %q): want %s", module[:min(4, len(module))], wanted)
	}
	version, layer := binary.LittleEndian.Uint16(module[4:]), binary.LittleEndian.Uint16(module[6:])
	switch {
	case layer == componentLayer:
		return invalid("this is a component (WASI 0.2), which wasmatrix does not run yet: want %s", wanted)
	case layer != 0 || version != coreVersion:
		return invalid("this is WebAssembly of version %d, layer %d, which nobody here knows: want %s", version, layer, wanted)
	}
	return nil
}

// Outline checks, as the bytes of a module come in, that each of its sections is there whole. Write
// the module to it, then ask Close.
type Outline struct {
	seen   int64  // bytes so far
	left   uint64 // bytes that are still to come of the section
	field  []byte // of a section's head: its id and its size, as far as they came
	broken error
}

// Write takes the next bytes in. It never fails: Close tells.
func (o *Outline) Write(b []byte) (int, error) {
	n := len(b)
	if skip := min(int64(n), max(0, int64(len(magic)+4)-o.seen)); skip > 0 { // the head is Check's
		o.seen += skip
		b = b[skip:]
	}
	for len(b) > 0 && o.broken == nil {
		if skip := min(o.left, uint64(len(b))); skip > 0 {
			o.left -= skip
			o.seen += int64(skip)
			b = b[skip:]
			continue
		}
		o.field = append(o.field, b[0])
		o.seen++
		b = b[1:]
		o.head()
	}
	return n, nil
}

// head ends a section's head once it is complete: an id of one byte, and a size as LEB128 of 32 bits.
func (o *Outline) head() {
	size, n := binary.Uvarint(o.field[1:])
	switch {
	case n > 0 && size <= math.MaxUint32:
		o.left, o.field = size, o.field[:0]
	case n != 0 || len(o.field) > maxSectionHead:
		o.broken = invalid("the module is damaged: no section can begin as one does at byte %d: build or copy it again", o.seen-int64(len(o.field)))
	}
}

// Close says what is wrong with what came, as an [*InvalidModuleError].
func (o *Outline) Close() error {
	switch {
	case o.broken != nil:
		return o.broken
	case o.left > 0:
		return invalid("the module is truncated: its last section lacks %d bytes: build or copy it again", o.left)
	case len(o.field) > 0:
		return invalid("the module is truncated amid the head of a section, after %d bytes: build or copy it again", o.seen)
	}
	return nil
}

// checkCompiled looks at what a module needs and offers.
func (e *Engine) checkCompiled(m wazero.CompiledModule, metered bool) error {
	var missing, other []string
	hint := ""
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		offered, ok := e.offered[module][name]
		switch {
		case !ok, module == meter.HostModule && !metered:
			missing = append(missing, module+"."+name)
			if module == abiModule {
				hint = fmt.Sprintf(" (this wasmatrix offers version %d of module %s, and knows no such function of it: run a newer one, or build the module with the SDK of this one)", ABIVersion, abiModule)
			}
		case !sameTypes(offered, f):
			other = append(other, fmt.Sprintf("%s.%s as %s, and it is %s", module, name, typeOf(f), typeOf(offered)))
		}
	}
	for _, mem := range m.ImportedMemories() {
		module, name, _ := mem.Import()
		missing = append(missing, module+"."+name+" (a memory)")
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		more := ""
		if len(missing) > 5 {
			more = fmt.Sprintf(" and %d more", len(missing)-5)
			missing = missing[:5]
		}
		return invalid("the module imports %s%s, which wasmatrix does not offer%s: want %s", strings.Join(missing, ", "), more, hint, wanted)
	}
	if len(other) > 0 {
		return invalid("the module imports %s: declare it as docs/guest-abi.md does", other[0])
	}
	if _, ok := m.ExportedFunctions()["_start"]; !ok {
		return invalid("the module exports no _start function, so it is a library and no command: build it with a main function, as %s", wanted)
	}
	return nil
}

func sameTypes(a, b api.FunctionDefinition) bool {
	return bytes.Equal(a.ParamTypes(), b.ParamTypes()) && bytes.Equal(a.ResultTypes(), b.ResultTypes())
}

// typeOf spells a function's type, such as (i32, i64) i32.
func typeOf(f api.FunctionDefinition) string {
	names := func(types []api.ValueType) string {
		var all []string
		for _, t := range types {
			all = append(all, api.ValueTypeName(t))
		}
		return strings.Join(all, ", ")
	}
	return strings.TrimSpace(fmt.Sprintf("(%s) %s", names(f.ParamTypes()), names(f.ResultTypes())))
}

// boundError says why a module must not even be compiled.
func boundError(err error) error {
	var many *meter.TooManyElementsError
	if errors.As(err, &many) {
		return invalid("the tables of the module start with %s elements, more than the %s that an instance may have: split the module, or have it call fewer functions through pointers",
			humanize.Comma(int64(many.Elements)), humanize.Comma(int64(many.Most)))
	}
	var large *meter.TooLargeError
	if errors.As(err, &large) {
		return invalid("%v: build the module so that it is split, with less inlining, or optimized", large)
	}
	return invalid("the module is damaged, or uses what wasmatrix does not know (%v): want %s", err, wanted)
}

// compileError turns wazero's error about a module into a sentence for whoever made it.
func compileError(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	if strings.Contains(first, "EOF") {
		return invalid("the module is truncated (%s): build or copy it again", first)
	}
	return invalid("the module is damaged or uses what wasmatrix does not know (%s): want %s", first, wanted)
}
