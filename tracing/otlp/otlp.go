package otlp

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmatrix/wasmatrix/tracing"
)

// The variables that are read here.
const (
	envDisabled       = "OTEL_SDK_DISABLED"
	envExporter       = "OTEL_TRACES_EXPORTER"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envQueue          = "OTEL_BSP_MAX_QUEUE_SIZE"
)

// queue is how many spans wait for the collector, some 10 MB of them: a request that starts a thousand instances makes
// four times as many at once. More are dropped.
const queue = 8192

// Config says whose spans they are.
type Config struct {
	// Version is that of the program.
	Version string
	// NodeID and NodeName are the node's; empty for a command.
	NodeID, NodeName string
	// Report is told when spans begin not to reach the collector, and with nil when they do again. Those are lost.
	Report func(err error)
}

// Provider makes tracers, and takes what they make to the collector. A nil one does nothing.
type Provider struct{ sdk *sdktrace.TracerProvider }

// Open returns a provider as the environment wants it: nil, if it wants none.
func Open(ctx context.Context, cfg Config) (*Provider, error) {
	wanted, err := isWanted()
	if !wanted || err != nil {
		return nil, err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, err
	}
	from, err := source(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var options []sdktrace.BatchSpanProcessorOption
	if os.Getenv(envQueue) == "" {
		options = append(options, sdktrace.WithMaxQueueSize(queue))
	}
	return &Provider{sdktrace.NewTracerProvider(
		sdktrace.WithResource(from),
		sdktrace.WithBatcher(&reporting{SpanExporter: exporter, report: cfg.Report}, options...),
	)}, nil
}

// Tracer returns what begins traces; nil, if nothing does.
func (p *Provider) Tracer() trace.Tracer {
	if p == nil {
		return nil
	}
	return p.sdk.Tracer(tracing.Scope)
}

// Close sends what is left, until ctx ends.
func (p *Provider) Close(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if err := p.sdk.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans to the collector: %w", err)
	}
	return nil
}

// isWanted says whether the environment asks for traces: by an exporter, or by the address of a collector.
func isWanted() (bool, error) {
	if strings.EqualFold(os.Getenv(envDisabled), "true") {
		return false, nil
	}
	switch name := os.Getenv(envExporter); name {
	case "otlp":
		return true, nil
	case "none":
		return false, nil
	case "":
		return os.Getenv(envEndpoint) != "" || os.Getenv(envTracesEndpoint) != "", nil
	default:
		return false, fmt.Errorf("%s=%q: want otlp or none", envExporter, name)
	}
}

// newExporter returns what speaks to the collector. It connects when there is something to send.
func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	name, protocol := envTracesProtocol, os.Getenv(envTracesProtocol)
	if protocol == "" {
		name, protocol = envProtocol, os.Getenv(envProtocol)
	}
	switch protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "", "http/protobuf", "http/json": // the first is the default of OpenTelemetry's specification
		return otlptracehttp.New(ctx)
	default:
		return nil, fmt.Errorf("%s=%q: want grpc, http/protobuf or http/json", name, protocol)
	}
}

// source describes where the spans come from. What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes last, and decides.
func source(ctx context.Context, cfg Config) (*resource.Resource, error) {
	told := []attribute.KeyValue{attribute.String("service.name", "wasmatrix"), attribute.String("service.version", cfg.Version)}
	if cfg.NodeID != "" {
		told = append(told, attribute.String("service.instance.id", cfg.NodeID), tracing.NodeName.String(cfg.NodeName))
	}
	r, err := resource.New(ctx, resource.WithAttributes(told...), resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe where spans come from (is OTEL_RESOURCE_ATTRIBUTES like key=value,key=value?): %w", err)
	}
	return r, nil
}

// reporting is an exporter that tells when it stops to work, and when it works again, and not each time.
type reporting struct {
	sdktrace.SpanExporter

	report  func(error)
	failing atomic.Bool
}

// ExportSpans implements [sdktrace.SpanExporter].
func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if failing := err != nil; r.failing.Swap(failing) != failing && r.report != nil {
		r.report(err)
	}
	return nil // it has been told; the SDK would tell it to the process's global handler
}
