package runtime

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmatrix/wasmatrix/capability"
)

// caller builds by hand a module that exports each import again, each behind a function that passes its arguments on. Those in
// rename are imported by the other name.
func caller(memoryPages uint32, rename map[string]string) []byte {
	functions := hostFunctions()
	imports, each := leb(uint32(len(functions))), leb(uint32(len(functions)+1)) // with _start
	types, indexes, exports, bodies := slices.Clone(each), slices.Clone(each), slices.Clone(each), slices.Clone(each)
	name := func(to []byte, s string) []byte { return append(append(to, leb(uint32(len(s)))...), s...) }
	for n, f := range functions {
		types = append(append(append(append(types, 0x60), leb(uint32(len(f.params)))...), f.params...), 1, f.result)
		imports = append(append(name(name(imports, abiModule), cmp.Or(rename[f.name], f.name)), 0), leb(uint32(n))...)
		indexes = append(indexes, leb(uint32(n))...)
		exports = append(append(name(exports, f.name), 0), leb(uint32(len(functions)+n))...)
		body := []byte{0} // no locals
		for p := range f.params {
			body = append(append(body, 0x20), leb(uint32(p))...) // local.get
		}
		body = append(append(append(body, 0x10), leb(uint32(n))...), 0x0b) // call, end
		bodies = append(append(bodies, leb(uint32(len(body)))...), body...)
	}
	types = append(types, 0x60, 0, 0)
	indexes = append(indexes, leb(uint32(len(functions)))...)
	exports = append(append(name(exports, "_start"), 0), leb(uint32(2*len(functions)))...)
	bodies = append(bodies, 2, 0, 0x0b)
	module := []byte("\x00asm\x01\x00\x00\x00")
	module = append(module, section(1, types...)...)
	module = append(module, section(2, imports...)...)
	module = append(module, section(3, indexes...)...)
	if memoryPages > 0 {
		module = append(module, section(5, append([]byte{1, 0}, leb(memoryPages)...)...)...)
	}
	module = append(module, section(7, exports...)...)
	return append(module, section(10, bodies...)...)
}

// callee is an instance of caller, whose imports a test calls one by one.
type callee struct {
	tb     testing.TB
	ctx    context.Context
	i      *Instance
	memory api.Memory
	at     uint32 // where the next argument is laid
}

func newCallee(tb testing.TB, e *Engine, s *capability.Session) *callee {
	tb.Helper()
	m, err := compileBytes(e, caller(2, nil))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Release)
	return startCallee(tb, e, m, s)
}

func startCallee(tb testing.TB, e *Engine, m *Module, s *capability.Session) *callee {
	tb.Helper()
	i, err := e.Instantiate(tb.Context(), m, Spec{MemoryLimit: 4 * mib, Session: s})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = i.Close(context.Background()) })
	ctx := context.WithValue(tb.Context(), hostKey{}, i.host)
	return &callee{tb: tb, ctx: ctx, i: i, memory: memoryOf(i.module)}
}

// raw calls an import with the arguments as they are.
func (c *callee) raw(name string, args ...uint64) (int64, error) {
	results, err := c.i.module.ExportedFunction(name).Call(c.ctx, args...)
	if err != nil {
		return 0, err
	}
	if name == "result_number" {
		return int64(results[0]), nil
	}
	return int64(int32(results[0])), nil
}

// call calls an import. A string becomes a pointer and a length, an int a number.
func (c *callee) call(name string, args ...any) int64 {
	c.tb.Helper()
	c.at = 8
	var stack []uint64
	for _, arg := range args {
		switch arg := arg.(type) {
		case string:
			if !c.memory.WriteString(c.at, arg) {
				c.tb.Fatalf("%d bytes do not fit into the guest's memory", len(arg))
			}
			stack = append(stack, uint64(c.at), uint64(len(arg)))
			c.at += uint32(len(arg))
		case int:
			stack = append(stack, uint64(arg))
		}
	}
	value, err := c.raw(name, stack...)
	if err != nil {
		c.tb.Fatalf("%s: %v", name, err)
	}
	return value
}

// want calls an import and wants what it returns.
func (c *callee) want(value int64, name string, args ...any) {
	c.tb.Helper()
	if got := c.call(name, args...); got != value {
		c.tb.Fatalf("%s%.80q = %d (%s), want %d", name, args, got, c.result(), value)
	}
}

// result reads the result buffer as a guest does.
func (c *callee) result() string {
	c.tb.Helper()
	size := uint32(c.call("result_len"))
	if size == 0 {
		return ""
	}
	const at = 1024
	c.want(int64(size), "result_read", at, 0, int(size))
	b, _ := c.memory.Read(at, size)
	return string(b)
}

func (c *callee) number() int64 { return c.call("result_number") }

// items reads the result as a list.
func (c *callee) items() []string {
	c.tb.Helper()
	var all []string
	for b := []byte(c.result()); len(b) > 0; {
		size := binary.LittleEndian.Uint32(b)
		all = append(all, string(b[4:4+size]))
		b = b[4+size:]
	}
	return all
}
