package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// Module is compiled code, shared by all instances of it. Whoever got it from Compile releases it.
type Module struct {
	engine *Engine
	hash   string
	ready  chan struct{} // closed when compiled or err is set

	compiled wazero.CompiledModule
	metered  bool  // it calls the host again and again (package meter); else wazero checks for its context's end
	why      error // it can't be metered
	err      error

	users int // guarded by Engine.mu
}

// Compile returns a module's code: from memory, from disk, or else by compiling what load returns.
// Callers with the same hash at the same time share one compilation. What can't run is an
// [*InvalidModuleError].
func (e *Engine) Compile(ctx context.Context, hash string, load func(context.Context) ([]byte, error)) (*Module, error) {
	m, first := e.acquire(hash)
	if first {
		// It goes on if the caller gives up, as others may wait for it too.
		e.work.Go(func() {
			m.compiled, m.why, m.err = e.compile(context.WithoutCancel(ctx), hash, load)
			m.metered = m.why == nil
			if m.err == nil {
				e.metrics.found()
			} else {
				e.metrics.failed.Inc()
			}
			close(m.ready)
		})
	} else {
		e.metrics.memory.Inc()
	}
	select {
	case <-m.ready:
	case <-ctx.Done():
		e.work.Go(func() { // compiling ends by itself, and then nobody may want it
			<-m.ready
			m.Release()
		})
		return nil, ctx.Err()
	}
	if m.err != nil {
		m.Release()
		return nil, m.err
	}
	return m, nil
}

func (e *Engine) acquire(hash string) (m *Module, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m = e.modules[hash]; m != nil {
		if m.users == 0 {
			e.unused = slices.DeleteFunc(e.unused, func(u *Module) bool { return u == m })
		}
		m.users++
		return m, false
	}
	m = &Module{engine: e, hash: hash, ready: make(chan struct{}), users: 1}
	e.modules[hash] = m
	return m, true
}

// compile also says why what it returns is not metered; nil where it is.
func (e *Engine) compile(ctx context.Context, hash string, load func(context.Context) ([]byte, error)) (compiled wazero.CompiledModule, why, err error) {
	e.compiling <- struct{}{}
	defer func() { <-e.compiling }()
	defer func() {
		if p := recover(); p != nil { // a bug that outside bytes found in the compiler ends only them
			e.log.ErrorContext(ctx, "the compiler panicked", "module", hash, "err", p)
			compiled, err = nil, invalid("the module made the compiler fail (%v)", p)
		}
	}()
	if compiled = e.compileKept(ctx, hash); compiled == nil {
		if compiled, why, err = e.compileAnew(ctx, hash, load); err != nil {
			return nil, nil, err
		}
	}
	if err := e.checkCompiled(compiled, why == nil); err != nil {
		return nil, nil, errors.Join(err, compiled.Close(ctx))
	}
	return compiled, why, nil
}

// compileKept compiles a module that is on disk with metering in it, or returns nil.
func (e *Engine) compileKept(ctx context.Context, hash string) wazero.CompiledModule {
	rewritten, ok := e.rewritten.read(hash)
	if !ok {
		return nil
	}
	compiled, err := e.metered.CompileModule(ctx, rewritten)
	if err != nil {
		e.log.WarnContext(ctx, "a rewritten module on disk does not compile; it is made anew", "module", hash, "err", err)
		return nil
	}
	return compiled
}

func (e *Engine) compileAnew(ctx context.Context, hash string, load func(context.Context) ([]byte, error)) (compiled wazero.CompiledModule, why, err error) {
	bytes, err := load(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("load the module: %w", err)
	}
	if err := Check(bytes); err != nil {
		return nil, nil, err
	}
	if bytes, err = meter.Bound(bytes, maxElements); err != nil {
		return nil, nil, boundError(err)
	}
	compiled, why = e.compileMetered(ctx, hash, bytes)
	if errors.Is(why, meter.ErrReserved) {
		return nil, nil, invalid("%v: give them another name", why)
	}
	if why != nil {
		if compiled, err = e.compileChecked(ctx, bytes); err != nil { // which says what is wrong with it as it came
			return nil, nil, err
		}
		e.log.WarnContext(ctx, "a module can't be metered, so it runs slower", "module", hash, "err", why)
	}
	return compiled, why, nil
}

func (e *Engine) compileMetered(ctx context.Context, hash string, bytes []byte) (wazero.CompiledModule, error) {
	metered, err := meter.Rewrite(bytes)
	if err != nil {
		return nil, err
	}
	compiled, err := e.metered.CompileModule(ctx, metered)
	if err == nil {
		e.rewritten.write(hash, metered)
	}
	return compiled, err
}

func (e *Engine) compileChecked(ctx context.Context, bytes []byte) (wazero.CompiledModule, error) {
	r, err := e.checked()
	if err != nil {
		return nil, err
	}
	compiled, err := r.CompileModule(ctx, bytes)
	if err != nil {
		return nil, compileError(err)
	}
	return compiled, nil
}

// Release gives the module back. Its code stays in memory for a while.
func (m *Module) Release() {
	e := m.engine
	var drop *Module
	e.mu.Lock()
	m.users--
	switch {
	case m.users > 0:
	case m.err != nil: // the next caller tries again
		delete(e.modules, m.hash)
	default:
		e.unused = append(e.unused, m)
		if len(e.unused) > keepUnused {
			drop = e.unused[0]
			e.unused = e.unused[1:]
			delete(e.modules, drop.hash)
		}
	}
	e.mu.Unlock()
	if drop != nil {
		if err := drop.compiled.Close(context.Background()); err != nil {
			e.log.Warn("compiled code could not be freed", "module", drop.hash, "err", err)
		}
	}
}

// MinMemory is how much linear memory the module starts with, in bytes, as far as it shows: a memory
// that is not exported shows at instantiation.
func (m *Module) MinMemory() uint64 {
	var pages uint64
	for _, mem := range m.compiled.ExportedMemories() {
		pages += uint64(mem.Min())
	}
	return pages * pageBytes
}
