package runtime

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// numbered is a module that differs from others by its number.
func numbered(n byte) []byte {
	return append(tiny(oneFunction, exportStart, emptyCode), section(0, 1, 'n', n)...)
}

func TestMetricsTellWhereCodeCameFrom(t *testing.T) {
	dir := t.TempDir()
	open := func() *Engine {
		e, err := New(t.Context(), Config{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close(context.Background()) })
		return e
	}
	expect := func(e *Engine, when string, compiled, disk, memory float64) {
		t.Helper()
		m := e.metrics
		if c, d, r := testutil.ToFloat64(m.compiled), testutil.ToFloat64(m.disk), testutil.ToFloat64(m.memory); c != compiled || d != disk || r != memory {
			t.Errorf("%s: %v compiled, %v from disk, %v from memory; want %v, %v, %v", when, c, d, r, compiled, disk, memory)
		}
	}
	load := func(e *Engine, n byte) {
		t.Helper()
		m, err := compileBytes(e, numbered(n))
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	first := open()
	load(first, 1)
	load(first, 1)
	expect(first, "the first engine", 1, 0, 1)
	if files, bytes := first.metrics.cache.usage(); files != 1 || bytes == 0 {
		t.Errorf("the cache has %d files of %d bytes", files, bytes)
	}

	second := open()
	load(second, 1)
	expect(second, "after a restart", 0, 1, 0)
	load(second, 2)
	expect(second, "with another module", 1, 1, 0)

	found, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil || len(found) != 2 {
		t.Fatalf("the cache holds %v (%v)", found, err)
	}
	for _, path := range found {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	third := open()
	load(third, 3)
	second.CompiledFilesChanged()
	if _, err := compileBytes(third, []byte("no module")); err == nil || testutil.ToFloat64(third.metrics.failed) != 1 {
		t.Errorf("what is no module: %v, and %v failures", err, testutil.ToFloat64(third.metrics.failed))
	}
	expect(third, "after the cache was emptied", 1, 0, 0)
	if files, _ := second.metrics.cache.usage(); files != 1 {
		t.Errorf("the cache was changed by others, and has %d files", files)
	}
}

// Each file is counted once, whoever sees it first.
func TestMetricsCountEachOfManyCompilationsAtOnce(t *testing.T) {
	const many = 40
	dir := t.TempDir()
	e, err := New(t.Context(), Config{CacheDir: dir, MaxCompiles: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	var wg sync.WaitGroup
	for n := range byte(many) {
		wg.Go(func() {
			m, err := compileBytes(e, numbered(n))
			if err != nil {
				t.Error(err)
				return
			}
			m.Release()
		})
	}
	wg.Wait()
	if c, d := testutil.ToFloat64(e.metrics.compiled), testutil.ToFloat64(e.metrics.disk); c != many || d != 0 {
		t.Errorf("%d were compiled at once, and %v are counted, and %v from disk", many, c, d)
	}
}
