package rpc

import (
	"context"
	"sync/atomic"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func TestHealthOfTheControlPlaneIsWhetherItIsReady(t *testing.T) {
	noLeaks(t)
	var ready atomic.Bool
	p := startPort(t)
	serve(t, p, NewServer(ServerConfig{Ready: func(context.Context) error {
		if !ready.Load() {
			return Errorf(NoLeader, "no leader is known")
		}
		return nil
	}}))
	peers := NewPeers()
	defer peers.Close()
	conn, err := peers.Conn(p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := healthpb.NewHealthClient(conn)
	const (
		serving    = healthpb.HealthCheckResponse_SERVING
		notServing = healthpb.HealthCheckResponse_NOT_SERVING
		plane      = "wasmatrix.v1.ControlPlaneService"
		agent      = "wasmatrix.v1.NodeAgentService"
	)
	check := func(service string, want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		resp, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || resp.GetStatus() != want {
			t.Errorf("%q is %v, %v", service, resp.GetStatus(), err)
		}
	}
	check("", serving) // the process answers: whoever restarts what does not must not do so for want of a leader
	check(agent, serving)
	check(plane, notServing)
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "none"}); err == nil {
		t.Error("a service that is not there is healthy")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: plane})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != notServing {
		t.Errorf("first seen: %v, %v", first, err)
	}
	ready.Store(true)
	if next, err := watch.Recv(); err != nil || next.GetStatus() != serving {
		t.Errorf("seen next: %v, %v", next, err)
	}
	list, err := client.List(t.Context(), &healthpb.HealthListRequest{})
	if err != nil || len(list.GetStatuses()) != 3 || list.GetStatuses()[plane].GetStatus() != serving {
		t.Errorf("listed: %v, %v", list, err)
	}
}
