package runtime

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

// FuzzImports calls imports with whatever arguments, on a guest's real memory. Each call ends with a value or a status
// of the table, and writes only where it was told to.
func FuzzImports(f *testing.F) {
	word := func(at, size uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, at), size)
	}
	memory := append([]byte("kv\x00\x00\x00\x00\x00\x00messaging\x00\x00\x00\x00\x00\x00\x00http\x00\x00\x00\x00GET\x00http://127.0.0.1:1/\xff\xfe\x00"), list("a", "b")...)
	const kv = 0
	for n, function := range hostFunctions() {
		for _, pair := range [][]byte{word(kv, 2), word(8, 9), word(24, 4), word(0, 0), word(0, 0xffffffff), word(0xffffffff, 0xffffffff), word(0xffffffff, 1), word(1<<16, 1), word(53, 2)} {
			f.Add(byte(n), bytes.Repeat(pair, 6), memory)
		}
		// A good capability and bucket, and then everything.
		f.Add(byte(n), append(append(word(kv, 2), word(0, 0)...), bytes.Repeat([]byte{0xff}, 40)...), memory)
		if strings.HasPrefix(function.name, "http_") {
			f.Add(byte(n), append(append(append(append(word(24, 4), word(32, 3)...), word(36, 19)...), word(uint32(len(memory)-10), 10)...), make([]byte, 16)...), memory)
		}
	}
	e, err := New(context.Background(), Config{})
	if err != nil {
		f.Fatal(err)
	}
	m, err := compileBytes(e, caller(2, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, n byte, arguments, laid []byte) {
		functions := hostFunctions()
		function := functions[int(n)%len(functions)]
		engines := newEngines()
		c := startCallee(t, e, m, engines.session(t, "guest", "kv=kv:read,kv:write,kv:delete", "http=http:request,http:domain:127.0.0.1:1", "messaging=msg:publish,msg:subscribe"))
		defer c.i.host.close()
		ctx, cancel := context.WithTimeout(c.ctx, time.Second) // what waits for ever ends
		defer cancel()
		c.ctx = ctx
		c.want(0, "kv_set", "kv", "", "k", "value", 0, any64)
		c.want(1, "http_open", "http", "GET", "http://127.0.0.1:1/", "", 0, 0)
		c.want(0, "msg_subscribe", "messaging", "k", 0)
		c.want(5, "kv_get", "kv", "", "k") // a result to read
		size := c.memory.Size()
		c.memory.Write(0, laid[:min(len(laid), int(size))])
		before, _ := c.memory.Read(0, size)
		before = bytes.Clone(before)

		stack := make([]uint64, len(function.params))
		for p, kind := range function.params {
			var raw [8]byte
			width := 4
			if kind == i64 {
				width = 8
			}
			arguments = arguments[copy(raw[:width], arguments):]
			stack[p] = binary.LittleEndian.Uint64(raw[:])
		}
		value, err := c.raw(function.name, stack...)
		after, _ := c.memory.Read(0, size)
		if from, to, writes := written(function.name, stack, value); writes {
			copy(before[from:to], after[from:to])
		}
		if !bytes.Equal(before, after) {
			t.Fatalf("%s%v wrote where nothing was to be written", function.name, stack)
		}
		if err != nil {
			if ctx.Err() == nil {
				t.Fatalf("%s%v: %v", function.name, stack, err)
			}
			return // it waited, and was ended
		}
		if value < int64(capability.Interrupted) && function.result == i32 {
			t.Fatalf("%s%v = %d, which is no status", function.name, stack, value)
		}
	})
}

// written is where a call may have written: as much as it returned, at what it was given.
func written(function string, stack []uint64, value int64) (from, to int64, writes bool) {
	if value <= 0 {
		return 0, 0, false
	}
	switch function {
	case "result_read":
		from = int64(stack[0])
	case "http_read":
		from = int64(stack[1])
	default:
		return 0, 0, false
	}
	return from, from + value, true
}
