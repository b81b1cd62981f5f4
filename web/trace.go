package web

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/wasmatrix/wasmatrix/tracing"
)

// traced puts the caller's trace into the request's context, and begins a span of what somebody asks of the cluster: not of probes
// and scrapes, which come time and again.
func (s *Server) traced(ctx context.Context, r *http.Request) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	if r.URL.Path != "/" && !strings.HasPrefix(r.URL.Path, "/v1/") {
		return ctx, noop.Span{}
	}
	return tracing.Begin(ctx, s.cfg.Tracer, r.Method, trace.SpanKindServer, attribute.String("http.request.method", r.Method))
}

// served ends the span of a request, under the name that all requests of its kind share.
func served(span trace.Span, r *http.Request) {
	if span.IsRecording() && r.Pattern != "" {
		span.SetName(r.Method + " " + strings.TrimSuffix(r.Pattern, "{$}"))
		span.SetAttributes(attribute.String("http.route", r.Pattern))
	}
	span.End()
}
