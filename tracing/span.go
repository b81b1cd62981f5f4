package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Scope names the maker of all our spans.
const Scope = "github.com/wasmatrix/wasmatrix"

// What spans tell. The node that made one is told once for all its spans, in their resource.
const (
	NodeName     = attribute.Key("wasmatrix.node.name")
	InstanceID   = attribute.Key("wasmatrix.instance.id")
	InstanceName = attribute.Key("wasmatrix.instance.name")
	ModuleHash   = attribute.Key("wasmatrix.module.hash")
	PlacedOn     = attribute.Key("wasmatrix.placed_on")
	CapabilityID = attribute.Key("wasmatrix.capability.id")
	Correlation  = attribute.Key("wasmatrix.correlation_id")
	// ErrorCode is the contract's, or a capability's status.
	ErrorCode = attribute.Key("error.type")
)

// Start begins a part of the work of a request: a span below that of ctx, if that is being recorded, and else nothing. Whoever
// begins one ends it, with [End].
func Start(ctx context.Context, name string, told ...attribute.KeyValue) (context.Context, trace.Span) {
	return start(ctx, name, trace.SpanKindInternal, told)
}

// StartCall is Start for a call to another process.
func StartCall(ctx context.Context, name string, told ...attribute.KeyValue) (context.Context, trace.Span) {
	return start(ctx, name, trace.SpanKindClient, told)
}

func start(ctx context.Context, name string, kind trace.SpanKind, told []attribute.KeyValue) (context.Context, trace.Span) {
	above := trace.SpanFromContext(ctx)
	if !above.IsRecording() {
		return ctx, noop.Span{}
	}
	return above.TracerProvider().Tracer(Scope).Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(told...))
}

// Begin begins a request: a span below that of ctx, or else the first of a trace. A nil tracer begins nothing.
func Begin(ctx context.Context, tracer trace.Tracer, name string, kind trace.SpanKind, told ...attribute.KeyValue) (context.Context, trace.Span) {
	if tracer == nil {
		return ctx, noop.Span{}
	}
	if id := CorrelationID(ctx); id != "" {
		told = append(told, Correlation.String(id))
	}
	return tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(told...))
}

// End ends a span, which failed with that code and those words, if it has a code.
func End(span trace.Span, code, words string) {
	if code != "" {
		fail(span, code, words)
	}
	span.End()
}

// Fail says that what the span of ctx is of has failed.
func Fail(ctx context.Context, code, words string) { fail(trace.SpanFromContext(ctx), code, words) }

func fail(span trace.Span, code, words string) {
	if span.IsRecording() {
		span.SetStatus(codes.Error, strings.ToValidUTF8(words, "\uFFFD")) // they may be a guest's, and OTLP takes nothing else
		span.SetAttributes(ErrorCode.String(code))
	}
}
