package agent

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/tracing"
	"github.com/wasmatrix/wasmatrix/vitals"
)

// denialsEvery is how often one instance's denials of one capability make an event: a guest that asks in a loop must not
// push out all others.
const denialsEvery = 10 * time.Second

// calls observes the calls of all guests.
type calls struct {
	agent    *Agent
	tracer   trace.Tracer // nil for none
	latency  *prometheus.HistogramVec
	denials  *prometheus.CounterVec
	dropped  prometheus.Counter
	counts   vitals.Calls
	observed sync.Map // of callKey to prometheus.Observer: looking one up by its labels costs more than a call

	mu     sync.Mutex // guards denied
	denied map[string]map[string]*denial
}

type callKey struct {
	providerType, operation string
	status                  capability.Status
}

// denial is when an instance's last event of a capability was, and how many denials came since.
type denial struct {
	told  time.Time
	since int
}

var _ capability.Observer = (*calls)(nil)

func newCalls(a *Agent) *calls {
	c := &calls{
		agent:  a,
		tracer: a.cfg.Tracer,
		denied: map[string]map[string]*denial{},
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wasmatrix_capability_invocation_latency_seconds",
			Help: "What calls of guests to capability providers took, their checks included.",
			// From a map in memory to a request that is given up.
			Buckets: prometheus.ExponentialBucketsRange(0.000001, 10, 15),
		}, []string{"provider_type", "operation", "status"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wasmatrix_capability_denied_total",
			Help: "Calls of guests that were refused for want of a permission.",
		}, []string{"operation"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wasmatrix_capability_messages_dropped_total",
			Help: "Messages that were dropped because a guest had not received the ones before.",
		}),
	}
	for kind, operations := range capability.Operations() { // there from the start, so that nobody takes no call for no metric
		for _, operation := range operations {
			c.latency.WithLabelValues(kind, operation, capability.OK.String())
			c.denials.WithLabelValues(operation)
		}
	}
	return c
}

// of returns who observes the calls of one instance.
func (c *calls) of(i *instance) capability.Observer {
	if c.tracer == nil {
		return c
	}
	return &tracedCalls{c, trace.LinkFromContext(i.order.cause), []attribute.KeyValue{
		tracing.InstanceID.String(i.id), tracing.InstanceName.String(i.rec.Load().GetSpec().GetName()),
	}}
}

// tracedCalls observes the calls of one instance, each of which begins a trace that is linked to the instance's start: an instance
// may call for years.
type tracedCalls struct {
	*calls

	start trace.Link
	who   []attribute.KeyValue
}

var _ capability.Observer = (*tracedCalls)(nil)

// Calling implements [capability.Observer].
func (c *tracedCalls) Calling(ctx context.Context, providerType, operation string) context.Context {
	options := []trace.SpanStartOption{trace.WithAttributes(c.who...)}
	if c.start.SpanContext.IsValid() {
		options = append(options, trace.WithLinks(c.start))
	}
	ctx, _ = c.tracer.Start(ctx, providerType+" "+operation, options...) // which Called ends
	return ctx
}

// Called implements [capability.Observer].
func (c *tracedCalls) Called(ctx context.Context, providerType, capabilityID, operation string, status capability.Status, took time.Duration) {
	c.calls.Called(ctx, providerType, capabilityID, operation, status, took)
	span := trace.SpanFromContext(ctx)
	if span.IsRecording() && capabilityID != "" { // some calls name none
		span.SetAttributes(tracing.CapabilityID.String(clip(capabilityID)))
	}
	if status != capability.OK {
		tracing.Fail(ctx, status.String(), "")
	}
	span.End()
}

// Calling implements [capability.Observer].
func (c *calls) Calling(ctx context.Context, _, _ string) context.Context { return ctx }

// Called implements [capability.Observer].
func (c *calls) Called(_ context.Context, providerType, capabilityID, operation string, status capability.Status, took time.Duration) {
	if reached(operation, status) {
		c.counts.Add(capabilityID, took, failed(status))
	}
	key := callKey{providerType, operation, status}
	o, ok := c.observed.Load(key)
	if !ok {
		o, _ = c.observed.LoadOrStore(key, c.latency.WithLabelValues(providerType, operation, status.String()))
	}
	o.(prometheus.Observer).Observe(took.Seconds())
}

// reached says whether a call was one to a provider: the guest had a grant for it. One that waits for a message asks no
// provider.
func reached(operation string, status capability.Status) bool {
	switch status {
	case capability.InvalidRequest, capability.UnknownGrant, capability.PermissionDenied:
		return false
	}
	return operation != "receive" && operation != "unsubscribe"
}

// failed says whether a provider did not serve a call.
func failed(status capability.Status) bool {
	return status == capability.Unavailable || status == capability.Timeout || status == capability.Internal
}

// Dropped implements [capability.Observer].
func (c *calls) Dropped(capability.Caller) { c.dropped.Inc() }

// Denied implements [capability.Observer].
func (c *calls) Denied(who capability.Caller, capabilityID, operation string, err *capability.Error) {
	c.denials.WithLabelValues(operation).Inc()
	details := map[string]string{"capability_id": clip(capabilityID), "operation": operation, "error": clip(err.Message)}
	c.mu.Lock()
	of := c.denied[who.InstanceID]
	if of == nil {
		of = map[string]*denial{}
		c.denied[who.InstanceID] = of
	}
	d := of[capabilityID]
	if d == nil {
		if len(of) >= capability.MaxGrants { // a guest may make up ids without end
			clear(of)
		}
		d = &denial{}
		of[capabilityID] = d
	}
	if time.Since(d.told) < denialsEvery {
		d.since++
		c.mu.Unlock()
		return
	}
	if d.since > 0 {
		details["not_told"] = strconv.Itoa(d.since)
	}
	d.told, d.since = time.Now(), 0
	c.mu.Unlock()
	c.agent.RecordEvent(&pb.Event{Type: eventDenied, InstanceId: who.InstanceID, Name: who.Name, Details: details})
}

// forget lets go of what is kept of an instance whose run has ended.
func (c *calls) forget(instanceID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.denied, instanceID)
}
