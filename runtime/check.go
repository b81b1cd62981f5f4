package runtime

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/tetratelabs/wazero"
)

const (
	maxModule = 256 << 20 // bytes
	pageBytes = 64 << 10
	// The version field of a binary: of a core module, and of a component, whose upper half says
	// "layer 1" (the component model's Binary.md).
	coreVersion    = 1
	componentLayer = 1
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

// checkCompiled looks at what a module needs and offers.
func (e *Engine) checkCompiled(m wazero.CompiledModule) error {
	var missing []string
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		if _, ok := e.offered[module][name]; !ok {
			missing = append(missing, module+"."+name)
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
		return invalid("the module imports %s%s, which wasmatrix does not offer: want %s", strings.Join(missing, ", "), more, wanted)
	}
	if _, ok := m.ExportedFunctions()["_start"]; !ok {
		return invalid("the module exports no _start function, so it is a library and no command: build it with a main function, as %s", wanted)
	}
	return nil
}

// compileError turns wazero's error about a module into a sentence for whoever made it.
func compileError(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	if strings.Contains(first, "EOF") {
		return invalid("the module is truncated (%s): build or copy it again", first)
	}
	return invalid("the module is damaged or uses what wasmatrix does not know (%s): want %s", first, wanted)
}
