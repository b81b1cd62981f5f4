package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

func TestLinesNameTheRequestAndSpanOfTheirContext(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(LogHandler(slog.NewJSONHandler(&out, nil))).With("node", "a")
	log.InfoContext(t.Context(), "of no request")
	ctx := WithCorrelationID(t.Context(), "deploy-7")
	log.InfoContext(ctx, "of a request")
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	log.InfoContext(trace.ContextWithSpanContext(ctx, span), "of a traced one", "err", "none")

	want := []map[string]any{
		{"msg": "of no request", "node": "a"},
		{"msg": "of a request", "node": "a", "correlation_id": "deploy-7"},
		{"msg": "of a traced one", "node": "a", "correlation_id": "deploy-7", "err": "none", "trace_id": "01" + strings.Repeat("0", 30), "span_id": "02" + strings.Repeat("0", 14)},
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	for n, line := range lines {
		got := map[string]any{}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		delete(got, "time")
		delete(got, "level")
		if len(got) != len(want[n]) {
			t.Errorf("line %d is %v, want %v", n, got, want[n])
		}
		for key, value := range want[n] {
			if got[key] != value {
				t.Errorf("line %d has %s %v, want %v", n, key, got[key], value)
			}
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d", len(lines), len(want))
	}
}

func TestWorkThatOutlivesItsRequestKeepsItsIDs(t *testing.T) {
	request, cancel := context.WithCancel(WithCorrelationID(t.Context(), "deploy-7"))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	request = trace.ContextWithSpanContext(request, span)
	after := Follow(t.Context(), request)
	cancel()
	if after.Err() != nil || CorrelationID(after) != "deploy-7" || !trace.SpanContextFromContext(after).Equal(span) {
		t.Errorf("it has %v, id %q, span %v", after.Err(), CorrelationID(after), trace.SpanContextFromContext(after))
	}
	if plain := Follow(t.Context(), context.Background()); plain != t.Context() {
		t.Errorf("of nothing, it has become %v", plain)
	}
}

func TestIDsFromOutsideMustBeFitForALog(t *testing.T) {
	for id, fit := range map[string]bool{
		"deploy-7": true, "a": true, strings.Repeat("x", 128): true,
		"": false, strings.Repeat("x", 129): false, "two words": false, "a\nb": false, "é": false,
	} {
		if FitCorrelationID(id) != fit {
			t.Errorf("%q: fit is %v", id, !fit)
		}
	}
}

func TestDetailsNameTheRequestIfThereIsOne(t *testing.T) {
	if d := Details(t.Context(), nil); d != nil {
		t.Errorf("of no request: %v", d)
	}
	if d := Details(WithCorrelationID(t.Context(), "deploy-7"), nil); d["correlation_id"] != "deploy-7" {
		t.Errorf("of a request: %v", d)
	}
}
