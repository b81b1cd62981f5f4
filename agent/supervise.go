package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// instantiateTimeout bounds one instantiation. It takes milliseconds, except where a module's own
// start section does not end; and it keeps others waiting, so such a one is not waited for long.
const instantiateTimeout = 5 * time.Second

var (
	// errStopped is why the context of an instance ends that is stopped.
	errStopped = errors.New("stopped by request")
	// errSlowStart is why the preparation of an instance ends that takes too long.
	errSlowStart = rpc.Errorf(rpc.Timeout, "fetching or compiling its module takes longer than this node waits")
	// errSlowInstantiation is why an instantiation ends that takes too long.
	errSlowInstantiation = rpc.Errorf(rpc.Timeout, "what its module does before _start, in its start section, takes longer than %s", instantiateTimeout)
)

// order is what the instances of one order to start have in common.
type order struct {
	hash    modulestore.Hash
	sources []*pb.ModuleSource
	// cause has the ids of the request that ordered it.
	cause context.Context //nolint:containedctx // its instances start on after the call that carried the order
	// refused is set once the module has turned out not to run under this spec: the other instances
	// of the order need not find out again.
	refused atomic.Pointer[rpc.Error]
}

// stopRequest is why the context of an instance ends that somebody asked to stop.
type stopRequest struct {
	cause context.Context //nolint:containedctx // it has the ids of that request
}

func (s *stopRequest) Error() string { return errStopped.Error() }

// Unwrap makes it errStopped.
func (s *stopRequest) Unwrap() error { return errStopped }

func stoppedBy(request context.Context) error {
	return &stopRequest{tracing.Follow(context.Background(), request)}
}

// instance is one live instance, from the acceptance of its order to its end. Its supervisor, one
// goroutine, is the only one that moves it on; others stop it, wait for it and read its record.
type instance struct {
	id         string
	generation uint64
	order      *order
	// starting has the ids of the request that started it, and the span of this start; of nothing, once it has started.
	starting context.Context //nolint:containedctx // a goroutine of its own goes on with it
	before   *instance       // the generation that this one replaces, until that has ended
	out      *output
	rec      latest
	spent    spent
	noted    uint64 // of the fuel it has used, as far as the journal knows; guarded by writing

	ctx  context.Context // ends when the instance is to end
	stop context.CancelCauseFunc

	left    chan struct{} // closed once it is no longer starting
	failure *rpc.Error    // why it could not be started; set before left is closed
	done    chan struct{} // closed once it has ended and its record says so

	resumes bool // it is of an earlier life of the agent
	moved   bool // forget the record at the end; guarded by Agent.mu
	givenUp bool // it ends because it can't be kept; guarded by Agent.mu
	vouched bool // a leader builds on it, so it is not given up; guarded by Agent.mu
	held    bool // it waits for the leader's word before it runs again; guarded by contact.mu
	// How often contact had run out when the leader's last word on it came; guarded by contact.mu.
	heard uint64

	granting sync.Mutex          // held over a change of grants, and guards session
	session  *capability.Session // of the run under way; nil between two

	writing sync.Mutex // held from reading rec to publishing the next one, where grants could be lost in between
}

func newInstance(life context.Context, rec *pb.Instance, o *order, out *output) *instance {
	i := &instance{
		id:         rec.GetInstanceId(),
		generation: rec.GetGeneration(),
		order:      o,
		starting:   context.Background(),
		out:        out,
		left:       make(chan struct{}),
		done:       make(chan struct{}),
	}
	i.rec.Store(rec)
	i.spent.ended = rec.GetUsage()
	i.ctx, i.stop = context.WithCancelCause(life)
	return i
}

// end is how one run of an instance ended.
type end struct {
	ran   time.Duration
	began bool   // false if it could not even be instantiated
	code  *int32 // nil if it did not end by exiting
	why   string // for people; empty if it did not fail
	err   error  // where it did not begin
	spent bool   // its fuel is used up: no policy gives it more
	held  error  // why it was interrupted that must not run twice; nil if it was not
}

func (e end) failed() bool { return e.why != "" }

// supervise takes an instance through its life.
func (a *Agent) supervise(i *instance) {
	defer a.work.Done()
	defer i.stop(nil) // gives the context's memory back
	defer a.keeper.use(i.order.hash)()
	if i.before != nil {
		<-i.before.done
		i.before = nil
	}
	rules := policyOf(i.rec.Load().GetSpec().GetRestartPolicy())
	retries, restarts := uint32(0), i.rec.Load().GetRestarts()
	if i.resumes {
		var goesOn bool
		if retries, goesOn = a.awaitResume(i, rules); !goesOn {
			return
		}
		restarts++
	}
	module, err := a.prepare(i)
	for i.resumes && err != nil { // it was acknowledged once, so it is not given up like a first start
		var goesOn bool
		if retries, goesOn = a.fail(i, rules, retries, end{why: clip(err.Error())}); !goesOn {
			return
		}
		module, err = a.prepare(i)
	}
	if err != nil {
		a.abandon(i, err)
		return
	}
	defer module.Release()

	for first := !i.resumes; ; first = false {
		e := a.attempt(i, module, first, restarts)
		for e.held != nil && a.putOnHold(i, e) {
			if e.began {
				first, restarts = false, restarts+1
			}
			e = a.attempt(i, module, first, restarts)
		}
		if i.ctx.Err() != nil {
			a.finishStopped(i, e)
			return
		}
		if first && !e.began && !e.spent {
			a.abandon(i, e.err)
			return
		}
		v := verdict{}
		if !e.spent {
			v = rules.next(e.failed(), e.ran, retries, rand.Float64()) //nolint:gosec // jitter is no secret
		}
		rec := ended(i.rec.Load(), restarts, e, v)
		if e.failed() {
			a.counts.crashes.Add(1)
		}
		if !v.restart {
			a.finish(i, rec, a.event(endEvent(e), rec, e.details(rec, v)))
			return
		}
		a.publish(i, rec, a.crashEvent(e, rec, v))
		if !pause(i.ctx, v.after) {
			a.finishStopped(i, end{})
			return
		}
		retries, restarts = v.retries, restarts+1
	}
}

// putOnHold records that a run has ended of what must not run twice, and that it waits for the leader's word. What
// its policy never starts again has ended for good: it says false.
func (a *Agent) putOnHold(i *instance, e end) bool {
	rec := i.rec.Load()
	if !e.began {
		return true
	}
	if rec.GetSpec().GetRestartPolicy().GetPolicyType() == pb.PolicyType_POLICY_TYPE_NEVER {
		return false
	}
	rec = ended(rec, rec.GetRestarts(), e, verdict{restart: true})
	rec.RestartAt = nil
	a.publish(i, rec, a.event(eventStopped, rec, map[string]string{"reason": e.why}))
	return true
}

// prepare gets hold of the instance's module, compiled.
func (a *Agent) prepare(i *instance) (*wasm.Module, error) {
	ctx, cancel := context.WithTimeoutCause(tracing.Follow(i.ctx, i.starting), a.cfg.StartTimeout, errSlowStart)
	defer cancel()
	if refused := i.order.refused.Load(); refused != nil {
		return nil, refused
	}
	module, err := a.load(ctx, i.order)
	if damaged, _ := errors.AsType[*modulestore.DamagedError](err); damaged != nil {
		a.metrics.damagedModules.Inc()
		module, err = a.load(ctx, i.order) // the store has dropped it, so it is fetched again
	}
	if err != nil {
		i.order.refuse(err)
		return nil, causeOr(ctx, err)
	}
	return module, nil
}

// load fetches the order's module, if it is not here, and compiles it, if it is not compiled.
func (a *Agent) load(ctx context.Context, o *order) (*wasm.Module, error) {
	began := time.Now()
	if err := a.fetcher.fetch(ctx, o.hash, o.sources); err != nil {
		return nil, err
	}
	fetched := time.Now()
	ctx, span := tracing.Start(ctx, "compile")
	module, err := a.engine.Compile(ctx, string(o.hash), func(context.Context) ([]byte, error) {
		return a.store.Read(o.hash)
	})
	rpc.EndSpan(span, err)
	if err != nil {
		return nil, err
	}
	a.metrics.fetch.Observe(fetched.Sub(began).Seconds())
	a.metrics.compile.Observe(time.Since(fetched).Seconds())
	return module, nil
}

// publish makes a record the instance's newest, here and, by way of the reports, everywhere.
func (a *Agent) publish(i *instance, rec *pb.Instance, event *pb.Event) {
	i.writing.Lock()
	i.follow(rec)
	a.put(rec, event)
	i.writing.Unlock()
	a.told(i, rec)
}

// follow makes a record the instance's newest, with what was used up to now, and with the grants of the one before, which may
// have changed since it was made from that; i.writing is held.
func (i *instance) follow(rec *pb.Instance) {
	before := i.rec.Load()
	rec.Grants, rec.Usage, rec.Revision = before.GetGrants(), i.usage(), before.GetRevision()+1
	i.rec.Store(rec)
}

// told logs a new status for those who debug; for all others there are events.
func (a *Agent) told(i *instance, rec *pb.Instance) {
	ctx := i.starting
	if asked, ok := errors.AsType[*stopRequest](context.Cause(i.ctx)); ok {
		ctx = asked.cause
	}
	if a.log.Enabled(ctx, slog.LevelDebug) {
		a.log.DebugContext(ctx, "an instance has a new status", "instance_id", rec.GetInstanceId(), "name", rec.GetSpec().GetName(),
			"status", fact.StatusName(rec.GetStatus()), "generation", rec.GetGeneration(), "restarts", rec.GetRestarts(), "err", rec.GetLastError())
	}
}

// abandon ends an instance that could not be started: it leaves no record, unless it was stopped.
func (a *Agent) abandon(i *instance, err error) {
	if i.ctx.Err() != nil && !errors.Is(context.Cause(i.ctx), errLeaving) {
		a.finishStopped(i, end{})
		return
	}
	i.failure = startError(err, time.Since(i.rec.Load().GetPlacedAt().AsTime()))
	a.mu.Lock()
	if a.live[i.id] == i {
		delete(a.live, i.id)
		delete(a.outputs, i.id)
	}
	a.forget(i.id, i.generation, false, nil)
	a.mu.Unlock()
	i.closeAll()
}

// finishStopped ends an instance that was stopped by request; e is how its guest took it.
func (a *Agent) finishStopped(i *instance, e end) {
	rec, reason := stopped(i.rec.Load()), "request"
	if errors.Is(context.Cause(i.ctx), errLeaving) {
		rec, reason = leftBehind(rec), errLeaving.Error()
	}
	if e.code != nil { // it ended by itself just before
		rec.ExitCode = e.code
	}
	details := map[string]string{"reason": reason}
	if asked, ok := errors.AsType[*stopRequest](context.Cause(i.ctx)); ok {
		details = tracing.Details(asked.cause, details)
	}
	a.finish(i, rec, a.event(eventStopped, rec, details))
}

// finish ends an instance: this record is its last.
func (a *Agent) finish(i *instance, rec *pb.Instance, event *pb.Event) {
	i.out.close()
	a.mu.Lock()
	i.writing.Lock()
	i.follow(rec)
	if a.live[i.id] == i { // else a higher generation has taken its place
		delete(a.live, i.id)
	}
	if i.moved {
		a.forget(i.id, i.generation, true, event)
		if a.outputs[i.id] == i.out {
			delete(a.outputs, i.id)
		}
	} else if a.put(rec, event) && fact.Ended(rec.GetStatus()) {
		a.retainLocked(tombed{id: i.id, generation: i.generation, at: time.Now(), out: i.out})
	}
	i.writing.Unlock()
	a.mu.Unlock()
	a.told(i, rec)
	i.closeAll()
}

// closeAll lets those go on who wait for the instance.
func (i *instance) closeAll() {
	select {
	case <-i.left:
	default:
		i.leaveStarting()
	}
	i.out.close()
	close(i.done)
}

// leaveStarting lets those go on who wait for the instance to start.
func (i *instance) leaveStarting() {
	if i.failure != nil {
		tracing.Fail(i.starting, string(i.failure.Code), i.failure.Message)
	}
	trace.SpanFromContext(i.starting).End()
	i.starting = context.Background()
	close(i.left)
}

// endEvent is the event of an instance that ended by itself.
func endEvent(e end) string {
	if e.failed() {
		return eventCrashed
	}
	return eventStopped
}

// crashEvent tells of a failure that a restart will follow; an end without failure has none, since
// the restart tells of it.
func (a *Agent) crashEvent(e end, rec *pb.Instance, v verdict) *pb.Event {
	if !e.failed() {
		return nil
	}
	return a.event(eventCrashed, rec, e.details(rec, v))
}

// refuse remembers that the module can't run under the order's spec, if that is what err says.
func (o *order) refuse(err error) {
	if invalid := asInvalidModule(err); invalid != nil {
		o.refused.CompareAndSwap(nil, rpc.Errorf(rpc.InvalidRequest, "%w", err))
	}
}

func asInvalidModule(err error) *wasm.InvalidModuleError {
	invalid, _ := errors.AsType[*wasm.InvalidModuleError](err)
	return invalid
}

// causeOr returns why ctx ended, if it has, and else err.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// pause waits, and says whether it waited to the end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
