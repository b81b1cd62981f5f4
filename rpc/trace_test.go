package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// recorded returns a tracer, and what gives the names of the spans that have ended: "KIND NAME < NAME OF THE ONE ABOVE".
func recorded(t *testing.T) (trace.Tracer, func() []string, *tracetest.InMemoryExporter) {
	t.Helper()
	memory := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(memory))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer("test"), func() []string {
		var all []string
		for _, s := range memory.GetSpans() {
			one := s.SpanKind.String() + " " + s.Name[strings.LastIndex(s.Name, "/")+1:]
			for _, above := range memory.GetSpans() {
				if above.SpanContext.SpanID() == s.Parent.SpanID() && above.SpanContext.TraceID() == s.SpanContext.TraceID() {
					one += " < " + above.SpanKind.String() + " " + above.Name[strings.LastIndex(above.Name, "/")+1:]
				}
			}
			all = append(all, one)
		}
		slices.Sort(all)
		return all
	}, memory
}

func TestForwardedCallIsOneTrace(t *testing.T) {
	noLeaks(t)
	tracer, spans, memory := recorded(t)
	nodes := startNodesWith(t, tracer)
	ctx, command := tracer.Start(t.Context(), "command")
	ctx = tracing.WithCorrelationID(ctx, "deploy-7")
	if _, err := nodes[1].client.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: "x"}); err != nil {
		t.Fatal(err)
	}
	stream, err := nodes[2].client.ListInstances(ctx, &pb.ListInstancesRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	command.End()
	waitFor(t, "all spans", func() bool { return len(memory.GetSpans()) == 9 }) // a server's stream ends after its client's
	var want []string
	for _, method := range []string{"ListInstances", "QueryInstance"} {
		want = append(want, "client "+method+" < internal command", "client "+method+" < server "+method, "server "+method+" < client "+method, "server "+method+" < client "+method)
	}
	want = append(want, "internal command")
	slices.Sort(want)
	if got := spans(); !slices.Equal(got, want) {
		t.Errorf("the spans are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, s := range memory.GetSpans() {
		if s.SpanKind == trace.SpanKindServer && !slices.Contains(s.Attributes, tracing.Correlation.String("deploy-7")) {
			t.Errorf("%s has no correlation id: %v", s.Name, s.Attributes)
		}
	}
}

func TestTraceComesThroughANodeThatDoesNotTrace(t *testing.T) {
	noLeaks(t)
	tracer, spans, _ := recorded(t)
	nodes := startNodesWith(t, nil)
	var seen trace.SpanContext
	nodes[0].before = func(ctx context.Context) error {
		seen = trace.SpanContextFromContext(ctx)
		return nil
	}
	ctx, command := tracer.Start(t.Context(), "command")
	if _, err := nodes[1].client.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: "x"}); err != nil {
		t.Fatal(err)
	}
	command.End()
	if seen.TraceID() != command.SpanContext().TraceID() || !seen.IsSampled() {
		t.Errorf("the leader saw %v of %v", seen, command.SpanContext())
	}
	if got := spans(); len(got) != 2 {
		t.Errorf("the spans are %q", got)
	}
}

func TestTracesBeginWithWhatSomebodyAsks(t *testing.T) {
	noLeaks(t)
	tracer, spans, memory := recorded(t)
	p := startPort(t)
	s := NewServer(ServerConfig{Tracer: tracer})
	pb.RegisterControlPlaneServiceServer(s, odd{})
	serve(t, p, s)
	conn := dial(t, p.Addr().String())
	if err := healthy(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	peers := NewPeers()
	t.Cleanup(func() { _ = peers.Close() })
	node, err := peers.Conn(p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewControlPlaneServiceClient(node).QueryInstance(t.Context(), &pb.QueryInstanceRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := spans(); len(got) != 0 {
		t.Errorf("a probe, and a node of itself, began %q", got)
	}
	if _, err := pb.NewControlPlaneServiceClient(conn).QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: "ours"}); err == nil {
		t.Fatal("no error")
	}
	if got := spans(); !slices.Equal(got, []string{"server QueryInstance"}) {
		t.Fatalf("a user's call began %q", got)
	}
	if one := memory.GetSpans()[0]; !slices.Contains(one.Attributes, tracing.ErrorCode.String("INSTANCE_NOT_FOUND")) {
		t.Errorf("it failed, and says %v", one.Attributes)
	}
}
