package agent

import (
	"context"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// tracer returns a tracer, and what has the spans that have ended.
func tracer(t *testing.T, options ...sdktrace.TracerProviderOption) (trace.Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	memory := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithSyncer(memory))...)
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer("test"), memory
}

func TestGuestsCallIsATraceOfItsOwnLinkedToTheStart(t *testing.T) {
	traces, memory := tracer(t)
	h := newHost(t, "a", nil, func(c *Config) { c.Tracer = traces })
	start := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{7}, SpanID: trace.SpanID{8}, TraceFlags: trace.FlagsSampled})
	h.ctx = trace.ContextWithRemoteSpanContext(t.Context(), start)
	id := newID()
	h.mustStart(granted(spec(h.push(actor(t)), "sleep", "600000"), grant("kv:read")), id)
	h.mu.Lock()
	i := h.live[id]
	h.mu.Unlock()
	i.granting.Lock()
	session := i.session
	i.granting.Unlock()
	if _, err := session.Get(t.Context(), "kv", "", "key"); err == nil { // there is no provider here
		t.Fatal("no error")
	}
	spans := memory.GetSpans()
	if len(spans) != 1 || spans[0].Name != "kv get" || spans[0].Parent.IsValid() {
		t.Fatalf("the spans are %v", spans)
	}
	call := spans[0]
	if len(call.Links) != 1 || call.Links[0].SpanContext.TraceID() != start.TraceID() {
		t.Errorf("it is linked to %v", call.Links)
	}
	for _, want := range []attribute.KeyValue{
		tracing.InstanceID.String(id), tracing.InstanceName.String("actor"), tracing.CapabilityID.String("kv"), tracing.ErrorCode.String(capability.Unavailable.String()),
	} {
		if !slices.Contains(call.Attributes, want) {
			t.Errorf("no %v in %v", want, call.Attributes)
		}
	}
}

func TestCallThatIsNotSampledIsNotRecorded(t *testing.T) {
	traces, memory := tracer(t, sdktrace.WithSampler(sdktrace.NeverSample()))
	h := newHost(t, "a", nil, func(c *Config) { c.Tracer = traces })
	id := newID()
	h.mustStart(granted(spec(h.push(actor(t)), "sleep", "600000"), grant("kv:read")), id)
	observer := h.calls.of(h.live[id])
	ctx := observer.Calling(t.Context(), capability.TypeKV, "get")
	if s := trace.SpanFromContext(ctx); s.IsRecording() || !s.SpanContext().IsValid() {
		t.Errorf("it is %v", s.SpanContext())
	}
	observer.Called(ctx, capability.TypeKV, "kv", "get", capability.OK, 0)
	if spans := memory.GetSpans(); len(spans) != 0 {
		t.Errorf("the spans are %v", spans)
	}
}
