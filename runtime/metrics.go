package runtime

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what an engine counts.
type metrics struct {
	cache *codeFiles
	// Where modules' code came from.
	memory, disk, compiled, failed prometheus.Counter
}

// registerMetrics makes the engine's metrics. Gauges are read from memory, never from the disk.
func (e *Engine) registerMetrics(r prometheus.Registerer, cacheDir string) error {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wasmatrix_compiled_code_lookups_total",
		Help: "How often a module's compiled code was asked for, by where it came from: memory, the cache on disk, or compiled now.",
	}, []string{"source"})
	failed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wasmatrix_compile_failures_total",
		Help: "How often a module's code could not be had: the module can't run here, or its bytes could not be read.",
	})
	e.metrics = metrics{
		cache:  &codeFiles{dir: cacheDir},
		memory: lookups.WithLabelValues("memory"), disk: lookups.WithLabelValues("disk"), compiled: lookups.WithLabelValues("compiled"),
		failed: failed,
	}
	e.CompiledFilesChanged()
	if r == nil {
		return nil
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
	}
	counter := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read)
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		lookups, failed,
		gauge("wasmatrix_compiled_modules", "Modules whose compiled code is in memory, in use or kept for the next start.", func() float64 {
			e.mu.Lock()
			defer e.mu.Unlock()
			return float64(len(e.modules))
		}),
		gauge("wasmatrix_compiled_modules_unmetered", "Modules among those that can't be metered: their guests run slower, and can have neither --cpu-hard nor --fuel.", func() float64 {
			return float64(e.unmetered())
		}),
		counter("wasmatrix_guest_cpu_seconds_total", "How long guests of this node computed.", func() float64 { return e.Totals().CPU.Seconds() }),
		counter("wasmatrix_guest_fuel_total", "Units of metering (about an instruction each) that guests of this node used; those that can't be metered use none.", func() float64 { return float64(e.Totals().Fuel) }),
		gauge("wasmatrix_guest_memory_bytes", "Linear memory that guests of this node have.", func() float64 { return float64(e.Totals().Memory) }),
		gauge("wasmatrix_guests_waiting", "Guests that could compute, and wait for others to make room: as many compute at once as there are cores.", func() float64 { return float64(e.turns.waits.Load()) }),
		counter("wasmatrix_guest_wait_seconds_total", "How long guests waited for that, those that have got their place.", func() float64 { return time.Duration(e.turns.waited.Load()).Seconds() }),
		gauge("wasmatrix_compiled_code_cache_files", "Files of compiled code on this node's disk.", func() float64 { n, _ := e.metrics.cache.usage(); return float64(n) }),
		gauge("wasmatrix_compiled_code_cache_bytes", "Size of the compiled code on this node's disk.", func() float64 { _, b := e.metrics.cache.usage(); return float64(b) }),
	} {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

// unmetered returns how many modules have code in memory that is not metered.
func (e *Engine) unmetered() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.modules {
		select {
		case <-m.ready:
			if m.err == nil && !m.metered {
				n++
			}
		default: // not compiled yet
		}
	}
	return n
}

// found counts where code came from that was not in memory.
func (m *metrics) found() {
	fresh, compiled := m.cache.look()
	m.compiled.Add(float64(fresh))
	if !compiled {
		m.disk.Inc()
	}
}

// codeFiles is what is known of the files with compiled code. wazero does not say whether it found one or had to compile, but
// where it compiled there is a file that was not there before.
type codeFiles struct {
	dir string // empty where none are kept

	mu    sync.Mutex // guards all below
	sizes map[string]int64
	bytes int64
	ahead int // files that were counted by another's look, before their own came
}

// look brings what is known up to date after a module was loaded. It returns how many files are new, and whether the
// module's is or was one of them.
func (c *codeFiles) look() (fresh int, compiled bool) {
	if c.dir == "" {
		return 1, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh = c.lookLocked()
	switch {
	case fresh > 0:
		c.ahead += fresh - 1
		return fresh, true
	case c.ahead > 0:
		c.ahead--
		return 0, true
	}
	return 0, false
}

// lookLocked returns how many files are new. What can't be read is left for the next look.
func (c *codeFiles) lookLocked() (fresh int) {
	sizes := make(map[string]int64, len(c.sizes))
	c.bytes = 0
	_ = filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), rewrittenPrefix) {
			return filepath.SkipDir
		}
		if err != nil || !e.Type().IsRegular() || strings.HasSuffix(path, ".tmp") {
			return nil //nolint:nilerr // files come and go
		}
		size, known := c.sizes[path]
		if !known {
			info, err := e.Info()
			if err != nil {
				return nil //nolint:nilerr // files come and go
			}
			size = info.Size()
			fresh++
		}
		sizes[path] = size
		c.bytes += size
		return nil
	})
	c.sizes = sizes
	return fresh
}

func (c *codeFiles) usage() (files int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sizes), c.bytes
}

// CompiledFilesChanged tells the engine that somebody has deleted compiled code from its CacheDir.
func (e *Engine) CompiledFilesChanged() {
	e.metrics.cache.mu.Lock()
	defer e.metrics.cache.mu.Unlock()
	e.metrics.cache.lookLocked()
}
