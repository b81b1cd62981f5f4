package runtime

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// BenchmarkLongInstructions measures the longest time that a guest computes without a call of the host while it executes an instruction
// that does as much as can be asked of one, and how long the whole takes.
func BenchmarkLongInstructions(b *testing.B) {
	const (
		pages    = 16 << 10 // 1 GiB
		initWith = 64 * mib
	)
	n := func(n uint32) []byte { return append([]byte{0x41}, sleb(n)...) }
	for _, c := range []struct {
		name   string
		before []byte // puts things in place
		code   []byte
		data   int
	}{
		{"memory.fill of 1 GiB", nil, slices.Concat(n(0), n(1), n(pages<<16), []byte{0xfc, 11, 0}), 0},
		{"memory.copy of 512 MiB", nil, slices.Concat(n(pages<<15), n(0), n(pages<<15), []byte{0xfc, 10, 0, 0}), 0},
		{"memory.init of 64 MiB", nil, slices.Concat(n(0), n(0), n(initWith), []byte{0xfc, 8, 0, 0}), initWith},
		{"memory.grow by 1 GiB", nil, slices.Concat(n(pages), []byte{0x40, 0, 0x1a}), 0},
		{"table.grow by all", nil, slices.Concat([]byte{0xd2, 0}, n(maxElements), []byte{0xfc, 15, 0, 0x1a}), 0},
		{"table.grow by one", slices.Concat([]byte{0xd0, 0x70}, n(maxElements-1), []byte{0xfc, 15, 0, 0x1a}), slices.Concat([]byte{0xd2, 0}, n(1), []byte{0xfc, 15, 0, 0x1a}), 0},
		{"table.fill", slices.Concat([]byte{0xd0, 0x70}, n(maxElements), []byte{0xfc, 15, 0, 0x1a}), slices.Concat(n(0), []byte{0xd2, 0}, n(maxElements), []byte{0xfc, 17, 0}), 0},
		{"table.copy", slices.Concat([]byte{0xd0, 0x70}, n(maxElements), []byte{0xfc, 15, 0, 0x1a}), slices.Concat(n(1), n(0), n(maxElements-1), []byte{0xfc, 14, 0, 0}), 0},
		{"table.init", slices.Concat([]byte{0xd0, 0x70}, n(maxElements), []byte{0xfc, 15, 0, 0x1a}), slices.Concat(n(0), n(0), n(maxElements), []byte{0xfc, 12, 0, 0}), 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			body := func(code []byte) []byte {
				f := append(append([]byte{0}, code...), 0x0b)
				return append(leb(uint32(len(f))), f...)
			}
			elements := slices.Concat([]byte{1, 1, 0}, leb(maxElements), make([]byte, maxElements))
			wasm := tiny(
				section(3, 2, 0, 0), section(4, 1, 0x70, 0, 0), section(5, slices.Concat([]byte{1, 0}, leb(pages))...),
				section(7, append([]byte{2, 6}, "before\x00\x00\x04code\x00\x01"...)...), section(9, elements...), section(12, 1),
				section(10, slices.Concat([]byte{2}, body(c.before), body(c.code))...),
				section(11, slices.Concat([]byte{1, 1}, leb(uint32(c.data)), make([]byte, c.data))...),
			)
			wasm, err := meter.Bound(wasm, maxElements)
			if err != nil {
				b.Fatal(err)
			}
			metered, err := meter.Rewrite(wasm)
			if err != nil {
				b.Fatal(err)
			}
			var stretches, whole, native []time.Duration
			for b.Loop() {
				longest, took := longestStretch(b, metered)
				stretches, whole = append(stretches, longest), append(whole, took)
				_, took = longestStretch(b, wasm)
				native = append(native, took)
			}
			ms := func(sample []time.Duration) float64 {
				slices.Sort(sample)
				return sample[len(sample)/2].Seconds() * 1000
			}
			b.ReportMetric(ms(stretches), "stretch-ms")
			b.ReportMetric(ms(whole), "whole-ms")
			b.ReportMetric(ms(native), "native-ms")
		})
	}
}

// longestStretch returns the longest time between two calls of the host, which is called at each charge, and the time of all.
func longestStretch(b *testing.B, wasm []byte) (longest, took time.Duration) {
	b.Helper()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer func() { _ = r.Close(ctx) }()
	var last time.Time
	_, err := r.NewHostModuleBuilder(meter.HostModule).NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
		now := time.Now()
		longest = max(longest, now.Sub(last))
		last, stack[0] = now, 0
	}), []api.ValueType{i64}, []api.ValueType{i64}).Export(meter.HostRefill).Instantiate(ctx)
	if err != nil {
		b.Fatal(err)
	}
	m, err := r.InstantiateWithConfig(experimental.WithMemoryAllocator(ctx, &allocator{limit: 4 << 30}), bytes.Clone(wasm), wazero.NewModuleConfig())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.ExportedFunction("before").Call(ctx); err != nil {
		b.Fatal(err)
	}
	code := m.ExportedFunction("code")
	began := time.Now()
	last, longest = began, 0
	if _, err := code.Call(ctx); err != nil {
		b.Fatal(err)
	}
	ended := time.Now()
	return max(longest, ended.Sub(last)), ended.Sub(began)
}

// sleb spells a number as i32.const takes it.
func sleb(n uint32) []byte {
	var out []byte
	for v := int64(int32(n)); ; v >>= 7 {
		b := byte(v & 0x7f)
		if rest := v >> 7; rest == 0 && b&0x40 == 0 || rest == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}
