package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// odd is a control plane that fails in every way that a handler can.
type odd struct {
	pb.UnimplementedControlPlaneServiceServer
}

func (odd) QueryInstance(ctx context.Context, req *pb.QueryInstanceRequest) (*pb.QueryInstanceResponse, error) {
	switch req.GetRef() {
	case "panic":
		panic("index out of range")
	case "plain":
		return nil, errors.New("disk on fire")
	case "ours":
		return nil, Errorf(InstanceNotFound, "no instance %q", req.GetRef()).With("ref", req.GetRef())
	default:
		return &pb.QueryInstanceResponse{Instance: &pb.Instance{InstanceId: tracing.CorrelationID(ctx), LastError: strings.Repeat("x", len(req.GetRef()))}}, nil
	}
}

func (odd) WatchEvents(_ *pb.WatchEventsRequest, _ grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	panic("in a stream")
}

func startOdd(t *testing.T, cfg ServerConfig) pb.ControlPlaneServiceClient {
	t.Helper()
	p := startPort(t)
	s := NewServer(cfg)
	pb.RegisterControlPlaneServiceServer(s, odd{})
	serve(t, p, s)
	return pb.NewControlPlaneServiceClient(dial(t, p.Addr().String()))
}

func TestPanicFailsOneCallAndIsLoggedWithItsStack(t *testing.T) {
	noLeaks(t)
	var log syncBuffer
	client := startOdd(t, ServerConfig{Log: slog.New(tracing.LogHandler(slog.NewJSONHandler(&log, nil)))})
	_, unaryErr := client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: "panic"})
	stream, err := client.WatchEvents(t.Context(), &pb.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, streamErr := stream.Recv()
	for _, err := range []error{unaryErr, streamErr} {
		got := FromError(err)
		if got.Code != Internal || strings.Contains(got.Message, "index") {
			t.Errorf("the caller got %s %q", got.Code, got.Message)
		}
		id := got.Details["correlation_id"]
		found := false
		for line := range strings.Lines(string(log.Bytes())) {
			var entry map[string]any
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatal(err)
			}
			stack, _ := entry["stack"].(string)
			found = found || entry["correlation_id"] == id && strings.Contains(stack, "server_test.go")
		}
		if id == "" || !found {
			t.Errorf("no stack under id %q in the log:\n%s", id, log.Bytes())
		}
	}
	if _, err := client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestHandlersErrorsReachTheCallerAsOurs(t *testing.T) {
	noLeaks(t)
	client := startOdd(t, ServerConfig{})
	_, err := client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: "ours"})
	got := FromError(err)
	if got.Code != InstanceNotFound || got.Message != `no instance "ours"` || got.Details["ref"] != "ours" || status.Code(err) != codes.NotFound {
		t.Errorf("got %+v", got)
	}
	_, err = client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: "plain"})
	if got := FromError(err); got.Code != Internal || got.Message != "disk on fire" || got.Details["correlation_id"] == "" {
		t.Errorf("got %+v", got)
	}
	_, err = client.StopInstance(t.Context(), &pb.StopInstanceRequest{})
	if got := FromError(err); got.Code != InvalidRequest || !strings.Contains(got.Message, "another version") {
		t.Errorf("got %+v", got)
	}
}

func TestCorrelationIDIsTakenOrMade(t *testing.T) {
	noLeaks(t)
	client := startOdd(t, ServerConfig{})
	for sent, keeps := range map[string]bool{
		"deploy-7": true, "": false, "two words": false, strings.Repeat("x", 129): false,
	} {
		ctx := t.Context()
		if sent != "" {
			ctx = tracing.WithCorrelationID(ctx, sent)
		}
		var header metadata.MD
		resp, err := client.QueryInstance(ctx, &pb.QueryInstanceRequest{}, grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		id := resp.GetInstance().GetInstanceId()
		if back := header.Get(tracing.CorrelationHeader); len(back) != 1 || back[0] != id {
			t.Errorf("the handler has %q, the header says %q", id, back)
		}
		if keeps && id != sent {
			t.Errorf("sent %q, served as %q", sent, id)
		}
		if _, err := uuid.Parse(id); !keeps && err != nil {
			t.Errorf("sent %q, made %q: %v", sent, id, err)
		}
	}
}

func TestMessagesMayHave64MiB(t *testing.T) {
	noLeaks(t)
	client := startOdd(t, ServerConfig{})
	const above = 5 << 20 // gRPC's own limit is 4 MiB
	resp, err := client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: strings.Repeat("r", above)})
	if err != nil || len(resp.GetInstance().GetLastError()) != above {
		t.Errorf("5 MiB: %v", err)
	}
	_, err = client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: strings.Repeat("r", maxMessage+1)})
	if CodeOf(err) != ResourceExhausted {
		t.Errorf("more than 64 MiB: %v", err)
	}
}

func TestCallsAreCountedByMethodAndCode(t *testing.T) {
	noLeaks(t)
	registry := prometheus.NewRegistry()
	first := startOdd(t, ServerConfig{Registerer: registry})
	second := startOdd(t, ServerConfig{Registerer: registry})
	for _, client := range []pb.ControlPlaneServiceClient{first, second} {
		_, _ = client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{})
		_, _ = client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: "ours"})
		_, _ = client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{Ref: "panic"})
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts, timed := map[string]float64{}, uint64(0)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["method"] != "wasmatrix.v1.ControlPlaneService/QueryInstance" {
				t.Errorf("method %q", labels["method"])
			}
			switch family.GetName() {
			case "wasmatrix_api_request_total":
				counts[labels["code"]] = m.GetCounter().GetValue()
			case "wasmatrix_api_request_latency_seconds":
				timed = m.GetHistogram().GetSampleCount()
			}
		}
	}
	for _, code := range []string{"OK", "INSTANCE_NOT_FOUND", "INTERNAL_ERROR"} {
		if counts[code] != 2 {
			t.Errorf("%s: %v calls, want 2", code, counts[code])
		}
	}
	if timed != 6 {
		t.Errorf("%d calls timed, want 6", timed)
	}
}

func TestServerHasHealthAndReflection(t *testing.T) {
	noLeaks(t)
	p := startPort(t)
	s := NewServer(ServerConfig{})
	pb.RegisterControlPlaneServiceServer(s, odd{})
	serve(t, p, s)
	conn := dial(t, p.Addr().String())
	resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", resp, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if list := answer.GetListServicesResponse().String(); !strings.Contains(list, "wasmatrix.v1.ControlPlaneService") {
		t.Errorf("services: %s", list)
	}
}
