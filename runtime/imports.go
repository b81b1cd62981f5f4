package runtime

import (
	"context"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmatrix/wasmatrix/capability"
)

// ABIVersion is the version of what module wasmatrix offers to guests. Functions are added without raising
// it; it is raised if one ever changes or goes, and then both are offered for a while.
const ABIVersion = 1

// abiModule is the module that guests import from.
const abiModule = "wasmatrix"

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

// hostFunction is one function that a guest may import. docs/guest-abi.md says what each does; a test keeps
// that page and this table the same.
type hostFunction struct {
	name   string
	params []api.ValueType
	result api.ValueType
	do     func(ctx context.Context, h *host) (int64, error)
}

func params(types ...[]api.ValueType) []api.ValueType {
	var all []api.ValueType
	for _, t := range types {
		all = append(all, t...)
	}
	return all
}

func hostFunctions() []hostFunction {
	var (
		text   = []api.ValueType{i32, i32} // a pointer and a length, of bytes as well
		number = []api.ValueType{i32}
		long   = []api.ValueType{i64}
	)
	return []hostFunction{
		{"abi_version", nil, i32, abiVersion},
		{"result_len", nil, i32, resultLen},
		{"result_read", params(number, number, number), i32, resultRead},
		{"result_number", nil, i64, resultNumber},

		{"kv_get", params(text, text, text), i32, kvGet},
		{"kv_exists", params(text, text, text), i32, kvExists},
		{"kv_set", params(text, text, text, text, long, long), i32, kvSet},
		{"kv_delete", params(text, text, text, long), i32, kvDelete},
		{"kv_increment", params(text, text, text, long), i32, kvIncrement},
		{"kv_list", params(text, text, text, text, number), i32, kvList},

		{"http_open", params(text, text, text, text, long, long), i32, httpOpen},
		{"http_write", params(number, text), i32, httpWrite},
		{"http_send", number, i32, httpSend},
		{"http_read", params(number, text), i32, httpRead},
		{"http_close", number, i32, httpClose},

		{"msg_publish", params(text, text, text), i32, msgPublish},
		{"msg_request", params(text, text, text, long), i32, msgRequest},
		{"msg_reply", text, i32, msgReply},
		{"msg_subscribe", params(text, text, number), i32, msgSubscribe},
		{"msg_unsubscribe", number, i32, msgUnsubscribe},
		{"msg_receive", params(number, long), i32, msgReceive},
		{"msg_dropped", nil, i32, msgDropped},
	}
}

// offerImports makes module wasmatrix there for guests.
func (e *Engine) offerImports(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(abiModule)
	for _, f := range hostFunctions() {
		b.NewFunctionBuilder().
			WithGoModuleFunction(api.GoModuleFunc(e.hostCall(f)), f.params, []api.ValueType{f.result}).
			Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer module %s: %w", abiModule, err)
	}
	return nil
}

// hostKey is where the context of a run holds its *host. Looking it up costs a few nanoseconds, and needs no lock
// and no map of instances.
type hostKey struct{}

// host is what the imports of one instance work on. Its guest calls one at a time.
type host struct {
	session *capability.Session // nil for none
	work    *work               // nil outside a run
	ctx     context.Context     // of the run, for what is told none; set before the guest begins

	// Of the call under way.
	memory  api.Memory // nil where the guest has none
	args    []uint64   // what the guest passed and has not been taken yet
	refused error      // the first thing that is wrong with it

	// Of the call before, for result_len, result_read and result_number.
	result []byte // not to be changed: an engine may share it
	number int64

	capabilityID, bucket string // those named last: they rarely change

	exchanges map[int32]*exchange // the HTTP requests that are open
	last      int32               // the number given to one last
}

// hostCall makes of a function what wazero calls.
func (e *Engine) hostCall(f hostFunction) func(context.Context, api.Module, []uint64) {
	// These tell of the call before, and closing is done on the way to telling what failed.
	keeps := strings.HasPrefix(f.name, "result_") || f.name == "http_close"
	waits := f.name != "abi_version" && !strings.HasPrefix(f.name, "result_")
	return func(ctx context.Context, m api.Module, stack []uint64) {
		h, ok := ctx.Value(hostKey{}).(*host)
		if !ok { // no run of ours
			h = &host{}
		}
		if h.memory == nil {
			h.memory = memoryOf(m)
		}
		h.args, h.refused = stack[:len(f.params)], nil
		if !keeps {
			h.result, h.number = nil, 0
		}
		if waits {
			h.work.beginCall()
		}
		value, err := e.guarded(ctx, f, h)
		if waits {
			h.work.endCall(ctx)
		}
		if ctx.Err() != nil {
			panic(sys.NewExitError(sys.ExitCodeContextCanceled)) // ends the guest here, before it makes an exit of its own of this
		}
		if err != nil {
			failed := capability.FromError(err)
			value = int64(failed.Status)
			if !keeps {
				h.number, h.result = 0, []byte(strings.ToValidUTF8(failed.Message, "\uFFFD"))
			}
		}
		if f.result == i32 {
			value = int64(uint32(value))
		}
		stack[0] = uint64(value)
	}
}

// guarded makes of a bug in a provider an error of this call.
func (e *Engine) guarded(ctx context.Context, f hostFunction, h *host) (value int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.log.ErrorContext(ctx, "a call of a guest panicked", "operation", f.name, "err", p)
			err = capability.Errorf(capability.Internal, "wasmatrix failed in %s: %v", f.name, p)
		}
	}()
	return f.do(ctx, h)
}

// memoryOf returns the memory of a guest, nil if it has none.
func memoryOf(m api.Module) (memory api.Memory) {
	defer func() {
		if recover() != nil { // wazero then returns a memory that is nil in disguise
			memory = nil
		}
	}()
	memory = m.Memory()
	memory.Size()
	return memory
}

// close ends what the instance has open here. Its session is closed by whoever made it.
func (h *host) close() {
	for _, x := range h.exchanges {
		x.close()
	}
	h.exchanges, h.result, h.memory, h.args = nil, nil, nil, nil
}

// ready returns the session, or what is wrong with the arguments, all of which have been taken.
func (h *host) ready() (*capability.Session, error) {
	if h.refused != nil {
		return nil, h.refused
	}
	return h.granted()
}

// granted returns the session, or says that there is none.
func (h *host) granted() (*capability.Session, error) {
	if h.session == nil {
		return nil, errNoSession
	}
	return h.session, nil
}

var errNoSession = capability.Errorf(capability.UnknownGrant, "this instance has no grant of any capability")

func abiVersion(context.Context, *host) (int64, error) { return ABIVersion, nil }

func resultLen(_ context.Context, h *host) (int64, error) { return int64(len(h.result)), nil }

func resultNumber(_ context.Context, h *host) (int64, error) { return h.number, nil }

func resultRead(_ context.Context, h *host) (int64, error) {
	at, from, size := h.take(), h.take(), h.take()
	to, err := h.view("the buffer for the result", at, size)
	if err != nil {
		return 0, err
	}
	return int64(copy(to, h.result[min(int(from), len(h.result)):])), nil
}
