package runtime

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

const (
	// wasiPiece is how many bytes a call of WASI works on before others get their turn, and the guest is ended where its time is over.
	wasiPiece = 64 << 10
	// maxSubscriptions bounds one poll_oneoff. A guest has three descriptors, and waits for few times at once.
	maxSubscriptions = 4096
)

// The errors of WASI that are answered here.
const (
	errnoSuccess, errnoBadf, errnoFault, errnoInval, errnoNotdir, errnoNotsup = 0, 8, 21, 28, 54, 58
)

// wasiFunction is one that is done here, as wazero's works on for as long as the guest says and can't be ended, or takes memory in
// proportion to what the guest names.
type wasiFunction func(ctx context.Context, h *host, args []uint64) (errno uint64)

func wasiFunctions() map[string]wasiFunction {
	all := map[string]wasiFunction{
		"random_get": wasiRandom, "sched_yield": wasiYield, "poll_oneoff": wasiPoll, "fd_read": wasiRead, "fd_pread": wasiNone, "fd_pwrite": wasiNone,
	}
	for _, name := range []string{"create_directory", "filestat_get", "filestat_set_times", "link", "open", "readlink", "remove_directory", "rename", "symlink", "unlink_file"} {
		all["path_"+name] = wasiPath
	}
	return all
}

// offerWASI makes WASI there for guests.
func offerWASI(ctx context.Context, r wazero.Runtime) error {
	const name = wasi_snapshot_preview1.ModuleName
	builder := r.NewHostModuleBuilder(name)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(builder)
	theirs, err := builder.Compile(ctx)
	if err != nil {
		return fmt.Errorf("offer WASI: %w", err)
	}
	types := theirs.ExportedFunctions()
	for name, do := range wasiFunctions() {
		f := types[name]
		builder.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
			h, ok := ctx.Value(hostKey{}).(*host)
			if !ok { // no run of ours
				panic(sys.NewExitError(sys.ExitCodeContextCanceled))
			}
			if h.memory == nil {
				h.memory = memoryOf(m)
			}
			stack[0] = do(ctx, h, stack[:len(f.ParamTypes())])
		}), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	if _, err := builder.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer WASI: %w", err)
	}
	return nil
}

// wasiRandom fills memory piece by piece.
func wasiRandom(ctx context.Context, h *host, args []uint64) uint64 {
	to, err := h.view("", uint32(args[0]), uint32(args[1]))
	if err != nil {
		return errnoFault
	}
	for piece := range slices.Chunk(to, wasiPiece) {
		_, _ = rand.Read(piece) // never fails
		h.work.yield(ctx)
	}
	return errnoSuccess
}

func wasiYield(ctx context.Context, h *host, _ []uint64) uint64 {
	h.work.yield(ctx)
	goruntime.Gosched()
	return errnoSuccess
}

// A guest has no files: what it reads from is at its end, and what takes a path is answered without a look at that.
func wasiRead(_ context.Context, h *host, args []uint64) uint64 {
	switch {
	case args[0] != 0:
		return errnoBadf
	case h.memory == nil || !h.memory.WriteUint32Le(uint32(args[3]), 0):
		return errnoFault
	}
	return errnoSuccess
}

func wasiNone(context.Context, *host, []uint64) uint64 { return errnoBadf }

func wasiPath(_ context.Context, _ *host, args []uint64) uint64 {
	if isOpen(args[0]) {
		return errnoNotdir
	}
	return errnoBadf
}

// isOpen says whether a descriptor is one of a guest's three.
func isOpen(fd uint64) bool { return fd <= 2 }

// wasiPoll waits for one of several times. Descriptors are always ready.
func wasiPoll(ctx context.Context, h *host, args []uint64) uint64 {
	const (
		subscription, event = 48, 32 // bytes
		clock, fdWrite      = 0, 2
	)
	n := uint32(args[2])
	if n == 0 || n > maxSubscriptions {
		return errnoInval
	}
	in, err := h.view("", uint32(args[0]), n*subscription)
	if err != nil {
		return errnoFault
	}
	out, err := h.view("", uint32(args[1]), n*event)
	if err != nil {
		return errnoFault
	}
	subscriptions := slices.Clone(in) // the events may be laid over them
	wait := uint64(math.MaxInt64)
	for s := range slices.Chunk(subscriptions, subscription) {
		flags := binary.LittleEndian.Uint16(s[40:])
		switch kind := s[8]; {
		case kind > fdWrite || kind == clock && flags > 1:
			return errnoInval
		case kind == clock && flags == 1:
			return errnoNotsup // until a time of the clock
		case kind == clock:
			wait = min(wait, binary.LittleEndian.Uint64(s[24:]))
		default:
			wait = 0
		}
	}
	h.work.sleep(ctx, time.Duration(wait))
	var events []byte
	for s := range slices.Chunk(subscriptions, subscription) {
		e := make([]byte, event)
		copy(e, s[:8])
		e[10] = s[8]
		if s[8] == clock {
			if binary.LittleEndian.Uint64(s[24:]) > wait {
				continue
			}
		} else if !isOpen(uint64(binary.LittleEndian.Uint32(s[16:]))) {
			e[8] = errnoBadf
		}
		events = append(events, e...)
	}
	copy(out, events)
	if !h.memory.WriteUint32Le(uint32(args[3]), uint32(len(events)/event)) {
		return errnoFault
	}
	return errnoSuccess
}

// console is what a guest writes to. It takes one piece at a time, and each of a million that a single call may name.
type console struct {
	host *host
	to   io.Writer
}

func (c *console) Write(p []byte) (written int, err error) {
	for piece := range slices.Chunk(p, wasiPiece) {
		c.host.work.yield(c.host.ctx)
		n, err := c.to.Write(piece)
		written += n
		if err != nil {
			return written, err //nolint:wrapcheck // a guest is told only that it failed
		}
	}
	if len(p) == 0 {
		c.host.work.yield(c.host.ctx)
	}
	return written, nil
}
