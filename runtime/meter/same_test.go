package meter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// FuzzSameResults makes modules, and looks for one that does something else once it is metered: another result, trap, memory or global.
func FuzzSameResults(f *testing.F) {
	random := rand.NewChaCha8([32]byte{})
	for range 40 {
		seed := make([]byte, 600)
		_, _ = random.Read(seed) // never fails
		f.Add(seed)
	}
	s := newPair(f)
	f.Fuzz(func(t *testing.T, choices []byte) { s.compare(t, choices) })
}

func TestMeteredModulesDoWhatTheyDid(t *testing.T) {
	s := newPair(t)
	random := rand.NewChaCha8([32]byte{1})
	ran := 0
	for range 150 {
		choices := make([]byte, 800)
		_, _ = random.Read(choices) // never fails
		ran += s.compare(t, choices)
	}
	if ran < 150 { // of five functions each; the others compute for ever
		t.Errorf("%d calls were compared: are there enough that end?", ran)
	}
}

// pair runs modules both ways.
type pair struct {
	plain, metered wazero.Runtime
	left           int64 // of what the metered one may use
	given          int64 // of it, at the last call
	quanta         *rand.Rand
}

var errUsedUp = errors.New("used up")

func newPair(t testing.TB) *pair {
	t.Helper()
	ctx := context.Background()
	// What computes for ever without metering, and ends with it, is to be found, too.
	s := &pair{plain: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true)), metered: wazero.NewRuntime(ctx)}
	t.Cleanup(func() { _ = errors.Join(s.plain.Close(ctx), s.metered.Close(ctx)) })
	i64 := []api.ValueType{api.ValueTypeI64}
	_, err := s.metered.NewHostModuleBuilder(HostModule).NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
		if s.left -= s.given - int64(stack[0]); s.left < 0 {
			panic(errUsedUp)
		}
		s.given = s.quanta.Int64N(1 << s.quanta.IntN(10)) // it may end with any of them, and be called at each charge
		stack[0] = uint64(s.given)
	}), i64, i64).Export(HostRefill).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compare returns how many calls came to an end.
func (s *pair) compare(t *testing.T, choices []byte) (ended int) {
	t.Helper()
	wasm := generate(choices)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s.given, s.quanta = 0, rand.New(rand.NewChaCha8(sha256.Sum256(choices)))
	config := wazero.NewModuleConfig().WithName("")
	plain, err := s.plain.InstantiateWithConfig(ctx, wasm, config)
	if err != nil {
		t.Fatalf("the generated module is not valid: %v", err)
	}
	defer func() { _ = plain.Close(ctx) }()
	out, err := Rewrite(wasm)
	if err != nil {
		t.Fatal(err)
	}
	metered, err := s.metered.InstantiateWithConfig(ctx, out, config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = metered.Close(ctx) }()
	args := [][]uint64{{3, 1 << 40}, {}, {0x4009000000000000}, {1 << 33, 5, 0x3f800000}, {7}, {0x40000000, 1}}
	for n := range functions {
		s.left = 100_000
		name := fmt.Sprint(n)
		after, afterErr := metered.ExportedFunction(name).Call(ctx, args[n]...)
		if errors.Is(afterErr, errUsedUp) || afterErr != nil && said(afterErr) == "wasm error: stack overflow" {
			return ended // from here on they differ
		}
		before, beforeErr := plain.ExportedFunction(name).Call(ctx, args[n]...)
		if fmt.Sprint(before) != fmt.Sprint(after) || (beforeErr == nil) != (afterErr == nil) || beforeErr != nil && said(beforeErr) != said(afterErr) {
			t.Fatalf("function %d: %v, %v before; %v, %v after\n%x", n, before, beforeErr, after, afterErr, wasm)
		}
		ended++
		ours, _ := plain.Memory().Read(0, plain.Memory().Size())
		theirs, _ := metered.Memory().Read(0, metered.Memory().Size())
		if !bytes.Equal(ours, theirs) {
			t.Fatalf("after function %d the memory differs\n%x", n, wasm)
		}
		for _, global := range []string{"a", "b", "c", "d"} {
			if a, b := plain.ExportedGlobal(global).Get(), metered.ExportedGlobal(global).Get(); a != b {
				t.Fatalf("after function %d global %s is %x before, %x after\n%x", n, global, a, b, wasm)
			}
		}
	}
	return ended
}
