package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/wasmatrix/wasmatrix/tracing"
)

// Every call that is made with a trace in its context carries it (W3C Trace Context), and each server goes on with what it
// gets, also one that does not trace itself: so a trace comes through nodes of any configuration.

const (
	// userAgent and nodeAgent say who calls: a person's command, or a node.
	userAgent = "wasmatrix"
	nodeAgent = "wasmatrix-node"

	// ourPackages is what the names of our methods begin with. Others, such as those of the health service, are asked by
	// machines, time and again.
	ourPackages = "/wasmatrix."

	parentHeader = "traceparent"
)

// incomingTrace puts the caller's trace, if there is one, into the context.
func incomingTrace(ctx context.Context) context.Context {
	if len(metadata.ValueFromIncomingContext(ctx, parentHeader)) == 0 {
		return ctx
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return propagation.TraceContext{}.Extract(ctx, headers(md))
}

// begin begins the span of a call that is served. What a node asks of itself, outside any trace, begins none: reports and
// the like are no requests of anybody's.
func (o *observer) begin(ctx context.Context, method string) (context.Context, trace.Span) {
	ctx = incomingTrace(ctx)
	if o.tracer == nil {
		return ctx, noop.Span{}
	}
	if joins := trace.SpanContextFromContext(ctx).IsValid(); !joins && (!strings.HasPrefix(method, ourPackages) || fromNode(ctx)) {
		return ctx, noop.Span{}
	}
	return tracing.Begin(ctx, o.tracer, strings.TrimPrefix(method, "/"), trace.SpanKindServer, ofCall()...)
}

func fromNode(ctx context.Context) bool {
	agents := metadata.ValueFromIncomingContext(ctx, "user-agent")
	return len(agents) > 0 && strings.HasPrefix(agents[0], nodeAgent)
}

func ofCall() []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("rpc.system", "grpc")}
}

// outgoing begins the span of a call that is about to be made, and has the call carry what its context does.
func outgoing(ctx context.Context, method string, conn *grpc.ClientConn) (context.Context, trace.Span) {
	ctx = outgoingCorrelation(ctx)
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, noop.Span{}
	}
	server := strings.TrimPrefix(conn.Target(), "passthrough:///")
	ctx, span := tracing.StartCall(ctx, strings.TrimPrefix(method, "/"), append(ofCall(), attribute.String("server.address", server))...)
	carried := headers{}
	propagation.TraceContext{}.Inject(ctx, carried)
	for _, key := range carried.Keys() {
		ctx = metadata.AppendToOutgoingContext(ctx, key, carried.Get(key))
	}
	return ctx, span
}

// EndSpan ends a span that ended with err, nil for well.
func EndSpan(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		span.End()
		return
	}
	e := FromError(err)
	tracing.End(span, string(e.Code), e.Message)
}

func carryUnary(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, span := outgoing(ctx, method, conn)
	err := invoke(ctx, method, req, resp, conn, opts...)
	EndSpan(span, err)
	return err
}

func carryStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, span := outgoing(ctx, method, conn)
	stream, err := open(ctx, desc, conn, method, opts...)
	if err != nil || !span.IsRecording() {
		EndSpan(span, err)
		return stream, err
	}
	var once sync.Once
	end := func(err error) { once.Do(func() { EndSpan(span, err) }) }
	given := context.AfterFunc(ctx, func() { end(nil) }) // whoever wants no more of a stream ends its context
	return &tracedStream{ClientStream: stream, many: desc.ServerStreams, end: func(err error) { given(); end(err) }}, nil
}

// tracedStream ends a span with the stream that it is of.
type tracedStream struct {
	grpc.ClientStream

	many bool // answers may come
	end  func(error)
}

// RecvMsg implements [grpc.ClientStream].
func (s *tracedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case errors.Is(err, io.EOF):
		s.end(nil)
	case err != nil || !s.many:
		s.end(err)
	}
	return err
}

// headers are a call's, as propagators see them.
type headers metadata.MD

var _ propagation.TextMapCarrier = headers{}

// Get implements [propagation.TextMapCarrier].
func (h headers) Get(key string) string {
	if values := metadata.MD(h).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements [propagation.TextMapCarrier].
func (h headers) Set(key, value string) { metadata.MD(h).Set(key, value) }

// Keys implements [propagation.TextMapCarrier].
func (h headers) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}
