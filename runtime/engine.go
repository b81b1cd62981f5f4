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

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// Config is what an engine is told.
type Config struct {
	// Where compiled code is kept between runs; empty to keep none.
	CacheDir string
	// How many modules are compiled at once. Default: one less than there are cores, and at least
	// one, so that compiling never takes the whole machine.
	MaxCompiles int
	// Whether GOMAXPROCS is raised before the first guest runs, so that a processor of Go's is left for all else however many
	// guests never rest, and raised by more before the first that can't be metered. Default: it stays as it is.
	RaiseProcessors bool
	Log             *slog.Logger
	// Registerer takes the metrics; nil for nobody.
	Registerer prometheus.Registerer
}

// keepUnused is how many compiled modules are kept in memory that no instance uses. A Go guest's code
// takes some 20 MB; reading it back from disk takes some 30 ms.
const keepUnused = 8

// Engine compiles and runs modules. Its methods are safe for concurrent use.
type Engine struct {
	log        *slog.Logger
	cache      wazero.CompilationCache // nil for none
	rewritten  *rewrittenModules
	metered    wazero.Runtime
	checked    func() (wazero.Runtime, error) // for what can't be metered; made at the first call
	turns      *turns
	tally      *tally
	offered    map[string]map[string]api.FunctionDefinition // module → function that a guest may import
	compiling  chan struct{}                                // a place in it is the right to compile
	work       sync.WaitGroup                               // compilations under way
	processors processors
	metrics    metrics

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
		log:        cfg.Log,
		compiling:  make(chan struct{}, cfg.MaxCompiles),
		modules:    map[string]*Module{},
		tally:      newTally(),
		processors: processors{fixed: !cfg.RaiseProcessors},
	}
	e.turns = newTurns(goruntime.GOMAXPROCS(0))
	var err error
	if e.rewritten, err = openRewritten(cfg.CacheDir, cfg.Log); err != nil {
		return nil, err
	}
	rc := wazero.NewRuntimeConfig()
	if cfg.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(cfg.CacheDir) // it keeps wazero's versions apart
		if err != nil {
			return nil, fmt.Errorf("open the cache of compiled code: %w", err)
		}
		e.cache = cache
		rc = rc.WithCompilationCache(cache)
	}
	// A guest that is not metered could not be interrupted without WithCloseOnContextDone, and would stop the
	// garbage collector and with it this whole process.
	e.checked = sync.OnceValues(func() (wazero.Runtime, error) {
		return e.newRuntime(context.WithoutCancel(ctx), rc.WithCloseOnContextDone(true))
	})
	if e.metered, err = e.newRuntime(ctx, rc); err == nil {
		err = e.offerRefill(ctx, e.metered)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	if err := e.registerMetrics(cfg.Registerer, cfg.CacheDir); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	e.offered = map[string]map[string]api.FunctionDefinition{}
	for _, name := range []string{wasi_snapshot_preview1.ModuleName, abiModule, meter.HostModule} {
		e.offered[name] = e.metered.Module(name).ExportedFunctionDefinitions()
	}
	return e, nil
}

// newRuntime returns a runtime with all that guests may import.
func (e *Engine) newRuntime(ctx context.Context, rc wazero.RuntimeConfig) (wazero.Runtime, error) {
	r := wazero.NewRuntimeWithConfig(ctx, rc)
	if err := offerWASI(ctx, r); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	if err := e.offerImports(ctx, r); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return r, nil
}

// Close frees everything. No instance may run any more.
func (e *Engine) Close(ctx context.Context) error {
	e.work.Wait()
	e.turns.watch.Wait()
	var err error
	if e.metered != nil {
		err = e.metered.Close(ctx)
	}
	if r, failed := e.checked(); failed == nil { // made only to be closed, where nothing needed it
		err = errors.Join(err, r.Close(ctx))
	}
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("close the engine: %w", err)
	}
	return nil
}
