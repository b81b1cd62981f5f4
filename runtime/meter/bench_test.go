package meter

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// programs are functions of testdata/programs.c, with how much they are to do: a few hundredths of a second each.
var programs = map[string]uint64{
	"bytes": 20, "fib": 28, "mandelbrot": 200, "sieve": 3, "matrix": 10, "sha256": 3, "collatz": 200_000, "sort": 5, "list": 1000, "crc": 2_000_000,
}

// variant is one way to run a program.
type variant struct {
	name    string
	config  wazero.RuntimeConfig
	rewrite func([]byte) ([]byte, error)
	ctx     func(context.Context) (context.Context, context.CancelFunc)
}

// Variants are: nothing that could interrupt it, metering, and what wazero has for it.
func variants() []variant {
	same := func(wasm []byte) ([]byte, error) { return wasm, nil }
	background := func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }
	return []variant{
		{"native", wazero.NewRuntimeConfig(), same, background},
		{"metered", wazero.NewRuntimeConfig(), asRun, background},
		{"closeOnContextDone", wazero.NewRuntimeConfig().WithCloseOnContextDone(true), same, context.WithCancel},
	}
}

// BenchmarkPrograms runs each program in each way by turns, and reports the medians in proportion to the first way.
func BenchmarkPrograms(b *testing.B) {
	wasm, err := os.ReadFile(guest.C(b, filepath.Join("testdata", "programs.c")))
	if err != nil {
		b.Fatal(err)
	}
	var modules []api.Module
	for _, v := range variants() {
		modules = append(modules, instantiated(b, v, wasm))
	}
	for name, much := range programs {
		b.Run(name, func(b *testing.B) {
			took := make([][]time.Duration, len(modules))
			var sums []uint64
			for b.Loop() {
				sums = sums[:0]
				for n, v := range variants() {
					ctx, cancel := v.ctx(b.Context())
					began := time.Now()
					sum, err := modules[n].ExportedFunction(name).Call(ctx, much)
					took[n] = append(took[n], time.Since(began))
					cancel()
					if err != nil {
						b.Fatal(err)
					}
					sums = append(sums, sum...)
				}
			}
			if len(slices.Compact(sums)) != 1 {
				b.Errorf("the results differ: %v", sums)
			}
			native := median(took[0])
			b.ReportMetric(native.Seconds()*1000, "native-ms")
			for n, v := range variants()[1:] {
				b.ReportMetric(float64(median(took[n+1]))/float64(native), v.name+"-times")
			}
		})
	}
}

func instantiated(b *testing.B, v variant, wasm []byte) api.Module {
	b.Helper()
	wasm, err := v.rewrite(wasm)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, v.config)
	b.Cleanup(func() { _ = r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	refilled(b, r, 100_000)
	module, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		b.Fatal(err)
	}
	return module
}

func median(sample []time.Duration) time.Duration {
	slices.Sort(sample)
	return sample[len(sample)/2]
}

// BenchmarkRewrite measures the rewriting of a large module, beside its compilation.
func BenchmarkRewrite(b *testing.B) {
	wasm, err := os.ReadFile(guest.Go(b, filepath.Join("..", "..", "examples", "ticker")))
	if err != nil {
		b.Fatal(err)
	}
	var rewriting, compiling []time.Duration
	var size int
	for b.Loop() {
		began := time.Now()
		metered, err := asRun(wasm)
		if err != nil {
			b.Fatal(err)
		}
		rewriting = append(rewriting, time.Since(began))
		size = len(metered)
		for n, code := range [][]byte{wasm, metered} {
			r := wazero.NewRuntime(b.Context())
			began = time.Now()
			if _, err := r.CompileModule(b.Context(), code); err != nil {
				b.Fatal(err)
			}
			if n == 0 {
				compiling = append(compiling, time.Since(began))
			} else {
				b.ReportMetric(time.Since(began).Seconds()*1000, "compile-metered-ms")
			}
			_ = r.Close(b.Context())
		}
	}
	b.ReportMetric(median(rewriting).Seconds()*1000, "rewrite-ms")
	b.ReportMetric(median(compiling).Seconds()*1000, "compile-ms")
	b.ReportMetric(float64(size)/float64(len(wasm)), "size-times")
}
