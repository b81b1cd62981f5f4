package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/wasmatrix/wasmatrix/tracing"
)

// latencyBuckets go from a call on loopback (0.2 ms) to the client's default timeout (10 s).
var latencyBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// observer gives each call its correlation id, its span, a log line, a count, and an error fit to travel.
type observer struct {
	log     *slog.Logger
	tracer  trace.Tracer // nil for none
	total   *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

func newObserver(log *slog.Logger, tracer trace.Tracer, r prometheus.Registerer) *observer {
	return &observer{
		log: log, tracer: tracer,
		total: register(log, r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wasmatrix_api_request_total",
			Help: "gRPC calls served, by method and error code (OK for none).",
		}, []string{"method", "code"})),
		latency: register(log, r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "wasmatrix_api_request_latency_seconds",
			Help:    "How long gRPC calls took to serve; a stream counts when it ends.",
			Buckets: latencyBuckets,
		}, []string{"method"})),
	}
}

// register gives c to r, or returns the one that is there already: two servers may share a registry.
func register[C prometheus.Collector](log *slog.Logger, r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil {
		log.Error("request metrics are not exported", "err", err)
	}
	return c
}

func (o *observer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	ctx, span := o.begin(correlate(ctx), info.FullMethod)
	resp, err := handler(ctx, req)
	return resp, o.served(ctx, span, info.FullMethod, start, err)
}

func (o *observer) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	start := time.Now()
	ctx, span := o.begin(correlate(ss.Context()), info.FullMethod)
	err := handler(srv, &streamWithContext{ServerStream: ss, ctx: ctx})
	return o.served(ctx, span, info.FullMethod, start, err)
}

// correlate puts the request's correlation id into its context and into the answer's header.
func correlate(ctx context.Context) context.Context {
	id := incomingCorrelation(ctx)
	// It can only fail after headers were sent, and none were.
	_ = grpc.SetHeader(ctx, metadata.Pairs(tracing.CorrelationHeader, id))
	return tracing.WithCorrelationID(ctx, id)
}

// served notes that a call has ended and returns its error as it travels.
func (o *observer) served(ctx context.Context, span trace.Span, method string, start time.Time, err error) error {
	took := time.Since(start)
	method = strings.TrimPrefix(method, "/")
	code, level := "OK", slog.LevelDebug
	EndSpan(span, err)
	if err != nil {
		e := FromError(Correlated(ctx, err))
		code = string(e.Code)
		// What a user did wrong or will try again is the user's to see; this is the operator's.
		if e.Code == Internal {
			level = slog.LevelError
		}
		err = e.GRPCStatus().Err()
	}
	o.total.WithLabelValues(method, code).Inc()
	o.latency.WithLabelValues(method).Observe(took.Seconds())
	if o.log.Enabled(ctx, level) {
		attrs := []slog.Attr{
			slog.String("method", method), slog.String("code", code), slog.Duration("duration", took),
		}
		if p, ok := peer.FromContext(ctx); ok {
			attrs = append(attrs, slog.String("addr", p.Addr.String()))
		}
		if err != nil {
			attrs = append(attrs, slog.Any("err", err))
		}
		o.log.LogAttrs(ctx, level, "rpc served", attrs...)
	}
	return err
}

func (o *observer) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, o.panicked(ctx, info.FullMethod, r)
		}
	}()
	return handler(ctx, req)
}

func (o *observer) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = o.panicked(ss.Context(), info.FullMethod, r)
		}
	}()
	return handler(srv, ss)
}

// panicked makes a panic the failure of one call. The log has what happened; the caller, who could do
// nothing with it, gets the id under which to find it.
func (o *observer) panicked(ctx context.Context, method string, r any) error {
	id := tracing.CorrelationID(ctx)
	o.log.ErrorContext(ctx, "rpc handler panicked", "method", strings.TrimPrefix(method, "/"),
		"err", fmt.Sprint(r), "stack", string(debug.Stack()))
	return Errorf(Internal, "this is a defect of wasmatrix; the node's log says more under correlation_id %s", id)
}

// streamWithContext is a server stream with another context.
type streamWithContext struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // the interface asks for it
}

// Context returns the context of the call, with its correlation id and its span.
func (s *streamWithContext) Context() context.Context { return s.ctx }
