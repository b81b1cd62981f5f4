package cli

import (
	"context"
	"os"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
	"github.com/wasmatrix/wasmatrix/tracing/otlp"
)

// tracesTimeout is how long a command that is done waits for the collector to take its spans.
const tracesTimeout = time.Second

// traced does what a command is for, in a span of its own where the environment asks for traces. Whoever calls may have begun the
// trace: TRACEPARENT and TRACESTATE say so, as OpenTelemetry's specification has it.
func (c *client) traced(ctx context.Context, do func(context.Context) error) error {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": os.Getenv("TRACEPARENT"), "tracestate": os.Getenv("TRACESTATE"),
	})
	traces, err := otlp.Open(ctx, otlp.Config{Version: c.App.Version, Report: func(err error) {
		if err != nil {
			c.note("spans do not reach the collector: %s", err)
		}
	}})
	if err != nil {
		c.note("this is not traced: %s", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesTimeout)
		defer cancel()
		if err := traces.Close(ctx); err != nil {
			c.note("this is not traced: %s", err)
		}
	}()
	ctx, span := tracing.Begin(ctx, traces.Tracer(), commandName(c.Context), trace.SpanKindInternal)
	err = do(ctx)
	rpc.EndSpan(span, err)
	return err
}
