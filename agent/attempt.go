package agent

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// attempt instantiates the module and runs it to its end. What must not run twice waits for contact first, and ends
// with it.
func (a *Agent) attempt(i *instance, module *wasm.Module, first bool, restarts uint32) end {
	if !a.contact.await(i) {
		return end{}
	}
	spec := i.rec.Load().GetSpec()
	fuel, some := i.fuelLeft()
	if !some {
		return outOfFuel(spec)
	}
	ctx, over := a.contact.during(i)
	defer over()
	session := a.openSession(i)
	defer a.closeSession(i)
	guest, began, err := a.instantiate(ctx, i, module, session, fuel)
	switch {
	case errors.Is(err, wasm.ErrOutOfFuel):
		return outOfFuel(spec)
	case err != nil:
		return end{err: err, why: clip("instantiate: " + err.Error()), held: i.heldBy(ctx)}
	}
	i.spent.begin(guest)
	rec := running(i.rec.Load(), restarts)
	a.counts.starts.Add(1)
	if first {
		a.metrics.total.Observe(time.Since(rec.GetPlacedAt().AsTime()).Seconds())
		a.publish(i, rec, a.event(eventStarted, rec, tracing.Details(i.order.cause, nil)))
		i.leaveStarting()
	} else {
		a.metrics.restarts.Inc()
		a.publish(i, rec, a.event(eventRestarted, rec, map[string]string{"restarts": strconv.FormatUint(uint64(restarts), 10)}))
	}
	return i.run(ctx, guest, began)
}

// run runs a guest to its end. It is a function of its own to keep the stack that waits here small.
func (i *instance) run(ctx context.Context, guest *wasm.Instance, began time.Time) end {
	spec := i.rec.Load().GetSpec()
	timed, cancel := bounded(ctx, spec, began)
	defer cancel()
	exit := guest.Run(timed)
	i.spent.end(guest.Usage())
	i.out.flush()
	e := end{began: true, ran: time.Since(began)}
	switch {
	case exit.OutOfFuel:
		e = outOfFuel(spec)
		e.began = true
	case exit.Trap != "":
		e.why = clip(exit.Trap)
	case exit.Interrupted:
		e.why = "interrupted"
		if e.held = i.heldBy(ctx); e.held != nil {
			e.why = e.held.Error()
		} else if timed.Err() != nil {
			e.why = context.Cause(timed).Error()
		}
	default:
		e.code = &exit.Code
		if exit.Code != 0 {
			e.why = "exit code " + strconv.Itoa(int(exit.Code))
		}
	}
	return e
}

// heldBy returns why contact ended a run whose instance goes on, or nil.
func (i *instance) heldBy(ctx context.Context) error {
	if goesOn := i.ctx.Err() == nil; goesOn {
		return context.Cause(ctx)
	}
	return nil
}

// instantiate makes a guest with that much fuel, when it is its turn: a few at once, however many start. It says when it began.
func (a *Agent) instantiate(ctx context.Context, i *instance, module *wasm.Module, session *capability.Session, fuel uint64) (guest *wasm.Instance, began time.Time, err error) {
	select {
	case a.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, began, context.Cause(ctx)
	}
	defer func() { <-a.turns }()
	if refused := i.order.refused.Load(); refused != nil {
		return nil, began, refused
	}
	began = time.Now()
	spec := i.rec.Load().GetSpec()
	ctx, ended := bounded(ctx, spec, began)
	defer ended()
	ctx, cancel := context.WithTimeoutCause(tracing.Follow(ctx, i.starting), instantiateTimeout, errSlowInstantiation)
	defer cancel()
	ctx, span := tracing.Start(ctx, "instantiate")
	defer func() { rpc.EndSpan(span, err) }()
	guest, err = a.engine.Instantiate(ctx, module, wasm.Spec{
		Name:        i.id,
		Args:        append([]string{spec.GetName()}, spec.GetArgs()...),
		Env:         spec.GetEnv(),
		MemoryLimit: spec.GetMemoryLimitBytes(),
		Share:       int(spec.GetCpuMillicores()),
		Cap:         spec.GetCpuHard(),
		Fuel:        fuel,
		Stdout:      i.out.stdout(),
		Stderr:      i.out.stderr(),
		Session:     session,
	})
	if err != nil {
		if begun, _ := errors.AsType[*wasm.StartError](err); begun != nil {
			i.spent.end(begun.Used)
		}
		i.order.refuse(err)
		return nil, began, causeOr(ctx, err)
	}
	a.metrics.instantiate.Observe(time.Since(began).Seconds())
	return guest, began, nil
}
