package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// readyTimeout is how long it may take to find out whether a node is ready.
	readyTimeout = 2 * time.Second
	// watchEvery is how often that is looked at for who watches it.
	watchEvery = time.Second
)

// healthService is gRPC's standard health service. The server as a whole, and what agents serve, is healthy as long as it
// answers, like /healthz; the control plane is while this node knows a leader that has finished recovering, like /readyz.
type healthService struct {
	healthpb.UnimplementedHealthServer

	ready func(context.Context) error // nil: always
}

var _ healthpb.HealthServer = healthService{}

// Check implements the RPC of that name.
func (h healthService) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	now := h.look(ctx, req.GetService())
	if now == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Errorf(codes.NotFound, "there is no service %q", req.GetService())
	}
	return &healthpb.HealthCheckResponse{Status: now}, nil
}

// List implements the RPC of that name.
func (h healthService) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	resp := &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{}}
	for _, service := range []string{"", pb.ControlPlaneService_ServiceDesc.ServiceName, pb.NodeAgentService_ServiceDesc.ServiceName} {
		resp.Statuses[service] = &healthpb.HealthCheckResponse{Status: h.look(ctx, service)}
	}
	return resp, nil
}

// Watch implements the RPC of that name.
func (h healthService) Watch(req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for told := healthpb.HealthCheckResponse_ServingStatus(-1); ; {
		if now := h.look(stream.Context(), req.GetService()); now != told {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func (h healthService) look(ctx context.Context, service string) healthpb.HealthCheckResponse_ServingStatus {
	switch service {
	case "", pb.NodeAgentService_ServiceDesc.ServiceName:
		return healthpb.HealthCheckResponse_SERVING
	case pb.ControlPlaneService_ServiceDesc.ServiceName:
	default:
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if h.ready != nil && h.ready(ctx) != nil {
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}
