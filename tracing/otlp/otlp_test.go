package otlp

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// environment sets these variables, and no other that this package looks at.
func environment(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, name := range []string{
		envDisabled, envExporter, envEndpoint, envTracesEndpoint, envProtocol, envTracesProtocol, envQueue,
		"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
	} {
		t.Setenv(name, vars[name])
	}
}

func TestNothingIsMadeUnlessItIsAskedFor(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"nothing":     nil,
		"disabled":    {envDisabled: "TRUE", envEndpoint: "http://127.0.0.1:1"},
		"no exporter": {envExporter: "none", envEndpoint: "http://127.0.0.1:1"},
	} {
		environment(t, vars)
		p, err := Open(t.Context(), Config{})
		if p != nil || err != nil {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if p.Tracer() != nil || p.Close(t.Context()) != nil {
			t.Errorf("%s: it does something", name)
		}
	}
}

func TestWhatCantBeUsedIsNamed(t *testing.T) {
	for want, vars := range map[string]map[string]string{
		`OTEL_TRACES_EXPORTER="zipkin": want otlp or none`:                                {envExporter: "zipkin"},
		`OTEL_EXPORTER_OTLP_PROTOCOL="udp": want grpc, http/protobuf or http/json`:        {envExporter: "otlp", envProtocol: "udp"},
		`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="udp": want grpc, http/protobuf or http/json`: {envExporter: "otlp", envProtocol: "grpc", envTracesProtocol: "udp"},
	} {
		environment(t, vars)
		if p, err := Open(t.Context(), Config{}); p != nil || err == nil || err.Error() != want {
			t.Errorf("%v: %v, %v", vars, p, err)
		}
	}
}

// received is what a collector got.
type received struct {
	collector.UnimplementedTraceServiceServer

	mu  sync.Mutex // guards all
	all []*collector.ExportTraceServiceRequest
}

// Export implements the collector's service.
func (r *received) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, req)
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP takes spans over HTTP.
func (r *received) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	raw, err := io.ReadAll(req.Body)
	m := &collector.ExportTraceServiceRequest{}
	if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(raw, m) != nil {
		http.Error(w, "no spans", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(req.Context(), m) // it never fails
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// texts returns the attributes of the process, and the names of the spans.
func (r *received) texts() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, req := range r.all {
		for _, from := range req.GetResourceSpans() {
			for _, a := range from.GetResource().GetAttributes() {
				all = append(all, a.GetKey()+"="+a.GetValue().GetStringValue())
			}
			for _, scope := range from.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					all = append(all, "span "+s.GetName())
				}
			}
		}
	}
	return strings.Join(all, "\n")
}

func TestSpansReachTheCollectorInEitherProtocol(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	overGRPC, overHTTP := &received{}, &received{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, overGRPC)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	web := httptest.NewServer(overHTTP)
	defer web.Close()

	for name, c := range map[string]struct {
		vars map[string]string
		got  *received
	}{
		"grpc":    {map[string]string{envEndpoint: "http://" + l.Addr().String(), envProtocol: "grpc"}, overGRPC},
		"http":    {map[string]string{envEndpoint: web.URL, envProtocol: "http/protobuf"}, overHTTP},
		"default": {map[string]string{envEndpoint: web.URL, "OTEL_SERVICE_NAME": "cluster-7", "OTEL_RESOURCE_ATTRIBUTES": "zone=b"}, overHTTP},
	} {
		environment(t, c.vars)
		p, err := Open(t.Context(), Config{Version: "1.2", NodeID: "id", NodeName: "n1"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, span := p.Tracer().Start(t.Context(), name)
		span.End()
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := []string{"span " + name, "service.version=1.2", "service.instance.id=id", "wasmatrix.node.name=n1", "service.name=wasmatrix"}
		if name == "default" {
			want = append(want[:4], "service.name=cluster-7", "zone=b")
		}
		for _, w := range want {
			if got := c.got.texts(); !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", name, w, got)
			}
		}
	}
}

func TestSamplerIsThatOfTheEnvironment(t *testing.T) {
	environment(t, map[string]string{envEndpoint: "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "always_off"})
	p, err := Open(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, span := p.Tracer().Start(t.Context(), "one"); span.IsRecording() || !span.SpanContext().IsValid() {
		t.Errorf("it is recorded, or nothing: %v", span.SpanContext())
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTroubleWithTheCollectorIsToldWhenItChanges(t *testing.T) {
	var well atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	defer web.Close()
	environment(t, map[string]string{envEndpoint: web.URL})
	var told []error
	p, err := Open(t.Context(), Config{Report: func(err error) { told = append(told, err) }})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		well.Store(n >= 2)
		_, span := p.Tracer().Start(t.Context(), "one")
		span.End()
		if err := p.sdk.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if len(told) != 2 || told[0] == nil || told[1] != nil {
		t.Errorf("told: %v", told)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
