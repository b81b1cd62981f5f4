package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// ErrOutOfFuel is a guest whose fuel was used up before it began to run: by what its module starts with.
var ErrOutOfFuel = errors.New("its fuel is used up by the module's own start")

// StartError is why a module could not be made a guest, after what it starts with had used that.
type StartError struct {
	Err  error
	Used Usage
}

func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *StartError) Unwrap() error { return e.Err }

// Spec is what one guest is given.
type Spec struct {
	Name string // for error messages
	// The arguments, the first of which is by custom the program's own name.
	Args []string
	Env  map[string]string
	// The most linear memory it may have, in bytes.
	MemoryLimit uint64
	// How much it may compute where guests wait for one another, in proportion to the others: in thousandths of a core, of which it never
	// uses more than one. 0 is 100.
	Share int
	// It never computes for more than its share, though nobody waits.
	Cap bool
	// What it may use of fuel, in units of metering; 0 for all it wants. What was used by earlier runs is to be taken off before, and
	// a guest of which nothing is left is not to be run.
	Fuel uint64
	// Where its output goes; nil to drop it. Writes must not block for long.
	Stdout, Stderr io.Writer
	// What it may ask for beyond computing; nil for nothing. It is closed by whoever made it, after Run.
	Session *capability.Session
}

// Instance is one guest, ready to run once.
type Instance struct {
	name    string
	metered bool
	module  api.Module
	start   api.Function
	host    *host
	memory  *allocator
	tally   *tally
}

// Exit is how a run ended: by exiting, by a trap, or by interruption.
type Exit struct {
	Code        int32  // the exit code, where HasCode
	HasCode     bool   // the guest exited by itself
	Trap        string // why it was ended, in words such as "wasm trap: unreachable executed in func main.run"
	Interrupted bool   // the context ended first
	OutOfFuel   bool   // it wanted more fuel than it had
}

// Instantiate makes a guest of a module. A module that needs more memory than the limit is an
// [*InvalidModuleError].
func (e *Engine) Instantiate(ctx context.Context, m *Module, s Spec) (_ *Instance, err error) {
	if need := m.MinMemory(); need > s.MemoryLimit {
		return nil, tooLittleMemory(need, s.MemoryLimit)
	}
	if !m.metered && (s.Cap || s.Fuel > 0) {
		return nil, invalid("the module can't be metered (%v), so neither --cpu-hard nor --fuel can be kept: run it without them", m.why)
	}
	e.processors.spare(spareProcessors)
	work := e.newWork(m, s)
	memory := &allocator{limit: s.MemoryLimit}
	i := &Instance{name: s.Name, metered: m.metered, host: &host{session: s.Session, work: work, ctx: ctx}, memory: memory, tally: e.tally}
	e.tally.begin(i)
	defer func() {
		if err != nil {
			e.tally.end(i)
		}
	}()
	r := e.metered
	if !m.metered {
		e.processors.spare(spareUnmetered)
		if r, err = e.checked(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if p := recover(); p != nil { // wazero takes memory that it does not get for a bug
			switch {
			case memory.need > 0:
				err = tooLittleMemory(memory.need, s.MemoryLimit)
			case memory.err != nil:
				err = memory.err
			default:
				e.log.ErrorContext(ctx, "instantiation panicked", "instance_id", s.Name, "err", p)
				err = fmt.Errorf("instantiate: %v", p)
			}
		}
		if err != nil {
			err = &StartError{Err: err, Used: i.Usage()}
		}
	}()
	guest := context.WithValue(ctx, hostKey{}, i.host) // a start section may call imports already
	defer work.end()                                   // a start section that took long has a place
	i.module, err = r.InstantiateModule(experimental.WithMemoryAllocator(guest, memory), m.compiled, i.config(s))
	if err != nil {
		i.host.close()
	}
	switch {
	case work.fuel.out:
		return nil, ErrOutOfFuel
	case memory.need > 0:
		return nil, tooLittleMemory(memory.need, s.MemoryLimit)
	case memory.err != nil:
		return nil, memory.err
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("instantiate: %w", ctx.Err())
	case err != nil:
		return nil, errors.New(trapText(err, i.metered))
	}
	i.start = i.module.ExportedFunction("_start")
	work.fuel.counter = i.module.ExportedGlobal(meter.Counter)
	return i, nil
}

func (i *Instance) config(s Spec) wazero.ModuleConfig {
	c := wazero.NewModuleConfig().
		WithName("").         // anonymous: many instances of one module
		WithStartFunctions(). // Run calls _start
		WithArgs(s.Args...).
		WithSysWalltime().WithSysNanotime()
	for _, key := range slices.Sorted(maps.Keys(s.Env)) {
		c = c.WithEnv(key, s.Env[key])
	}
	return c.WithStdout(i.console(s.Stdout)).WithStderr(i.console(s.Stderr))
}

func (i *Instance) console(to io.Writer) io.Writer {
	if to == nil {
		to = io.Discard
	}
	return &console{host: i.host, to: to}
}

func tooLittleMemory(need, limit uint64) error {
	return invalid("the module starts with %s of memory, more than its limit of %s: give --memory %s or more",
		humanize.IBytes(need), humanize.IBytes(limit), flagSize(need))
}

// flagSize spells a size as --memory takes it, rounded up to whole MiB.
func flagSize(bytes uint64) string { return fmt.Sprintf("%dMiB", (bytes+1<<20-1)>>20) }

// Run runs the guest to its end and frees all that it had. When ctx ends, so does the guest, whatever
// it is doing.
func (i *Instance) Run(ctx context.Context) (exit Exit) {
	defer func() {
		if p := recover(); p != nil { // a bug in the host, which must end nobody but this guest
			exit = Exit{Trap: fmt.Sprintf("wasmatrix failed while it ran the guest: %v", p)}
		}
	}()
	defer i.tally.end(i)
	// Freed with a context of its own: ctx may have ended.
	defer func() { _ = i.module.Close(context.WithoutCancel(ctx)) }()
	defer i.host.close()
	i.host.ctx = ctx
	if i.host.work.begin(ctx) != nil {
		return Exit{Interrupted: true}
	}
	defer i.host.work.end()
	_, err := i.start.Call(context.WithValue(ctx, hostKey{}, i.host))
	var exited *sys.ExitError
	switch {
	case i.host.work.fuel.out:
		return Exit{OutOfFuel: true}
	case err == nil:
		return Exit{HasCode: true}
	case !errors.As(err, &exited):
		return Exit{Trap: trapText(err, i.metered)}
	case ctx.Err() != nil && (exited.ExitCode() == sys.ExitCodeContextCanceled || exited.ExitCode() == sys.ExitCodeDeadlineExceeded):
		return Exit{Interrupted: true}
	}
	return Exit{HasCode: true, Code: int32(exited.ExitCode())}
}

// Close frees an instance that is not run.
func (i *Instance) Close(ctx context.Context) error {
	defer i.tally.end(i)
	i.host.close()
	return i.module.Close(ctx)
}
