package web

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/tracing"
)

func TestRequestsGoOnWithTheirCallersTrace(t *testing.T) {
	memory := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(memory))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	s := newServer(t, "127.0.0.1:0", someCluster())
	s.cfg.Tracer = provider.Tracer("test")
	url := run(t, s)
	const callers = "0af7651916cd43dd8448eb211c80319c"
	var got api.Error
	for _, path := range []string{"/v1/status", "/v1/instances/none", "/healthz", "/metrics", "/nothing"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", "00-"+callers+"-b7ad6b7169203331-01")
		req.Header.Set("X-Correlation-Id", "deploy-7")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusNotFound {
			if err := json.Unmarshal(raw, &got); err != nil || got.Details["correlation_id"] != "deploy-7" {
				t.Errorf("%s: %s", path, raw)
			}
		}
	}
	var names []string
	var last tracetest.SpanStub
	for _, span := range memory.GetSpans() {
		if span.SpanKind != trace.SpanKindServer {
			continue // what the request asks of the cluster
		}
		names, last = append(names, span.Name), span
		if span.SpanContext.TraceID().String() != callers || !slices.Contains(span.Attributes, tracing.Correlation.String("deploy-7")) {
			t.Errorf("%s is of trace %s, and tells %v", span.Name, span.SpanContext.TraceID(), span.Attributes)
		}
	}
	if want := []string{"GET /v1/status", "GET /v1/instances/{id}"}; !slices.Equal(names, want) {
		t.Errorf("the spans are %q, want %q", names, want)
	}
	if !slices.Contains(last.Attributes, tracing.ErrorCode.String("INSTANCE_NOT_FOUND")) {
		t.Errorf("of none, the span tells %v", last.Attributes)
	}
}
