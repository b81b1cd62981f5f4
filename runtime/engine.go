package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Config is what an engine is told.
type Config struct {
	// Where compiled code is kept between runs; empty to keep none.
	CacheDir string
	// How many modules are compiled at once. Default: one less than there are cores, and at least
	// one, so that compiling never takes the whole machine.
	MaxCompiles int
	// By how much GOMAXPROCS is raised before the first guest runs, so that the operating system, which
	// shares cores more finely than Go shares its processors, lets others run beside guests that never
	// rest. Default 0.
	SpareProcessors int
	Log             *slog.Logger
	// Registerer takes the metrics; nil for nobody.
	Registerer prometheus.Registerer
}

// keepUnused is how many compiled modules are kept in memory that no instance uses. A Go guest's code
// takes some 20 MB; reading it back from disk takes some 30 ms.
const keepUnused = 8

// Engine compiles and runs modules. Its methods are safe for concurrent use.
type Engine struct {
	log       *slog.Logger
	cache     wazero.CompilationCache // nil for none
	runtime   wazero.Runtime
	offered   map[string]map[string]api.FunctionDefinition // module → function that a guest may import
	compiling chan struct{}                                // a place in it is the right to compile
	work      sync.WaitGroup                               // compilations under way
	makeRoom  func()                                       // raises GOMAXPROCS, at its first call
	metrics   metrics

	mu      sync.Mutex // guards all below
	modules map[string]*Module
	unused  []*Module // compiled and not in use, the longest unused first
}

// New returns an engine ready to compile.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.MaxCompiles == 0 {
		cfg.MaxCompiles = max(1, goruntime.NumCPU()-1)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		log:       cfg.Log,
		compiling: make(chan struct{}, cfg.MaxCompiles),
		modules:   map[string]*Module{},
		makeRoom: sync.OnceFunc(func() {
			if cfg.SpareProcessors > 0 {
				goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(0) + cfg.SpareProcessors)
			}
		}),
	}
	// Without WithCloseOnContextDone a spinning guest could not be interrupted, and would stop the
	// garbage collector and with it this whole process.
	rc := wazero.NewRuntimeConfig().WithCloseOnContextDone(true)
	if cfg.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(cfg.CacheDir) // it keeps wazero's versions apart
		if err != nil {
			return nil, fmt.Errorf("open the cache of compiled code: %w", err)
		}
		e.cache = cache
		rc = rc.WithCompilationCache(cache)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, e.runtime); err != nil {
		return nil, errors.Join(fmt.Errorf("offer WASI: %w", err), e.Close(ctx))
	}
	if err := e.offerImports(ctx); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	if err := e.registerMetrics(cfg.Registerer, cfg.CacheDir); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	e.offered = map[string]map[string]api.FunctionDefinition{}
	for _, name := range []string{wasi_snapshot_preview1.ModuleName, abiModule} {
		e.offered[name] = e.runtime.Module(name).ExportedFunctionDefinitions()
	}
	return e, nil
}

// Close frees everything. No instance may run any more.
func (e *Engine) Close(ctx context.Context) error {
	e.work.Wait()
	err := e.runtime.Close(ctx)
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("close the engine: %w", err)
	}
	return nil
}
