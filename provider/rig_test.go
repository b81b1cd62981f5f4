package provider

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/messaging"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// site is one node's providers on a real server, without the rest of a node.
type site struct {
	*Host

	t      *testing.T
	id     string
	addr   string
	server *grpc.Server
	peers  *rpc.Peers
}

// service is the part of an agent's service that providers answer.
type service struct {
	pb.UnimplementedNodeAgentServiceServer

	host *Host
}

func (s service) InvokeCapability(ctx context.Context, req *pb.InvokeCapabilityRequest) (*pb.InvokeCapabilityResponse, error) {
	return s.host.Invoke(ctx, req)
}

func (s service) SubscribeCapability(req *pb.SubscribeCapabilityRequest, stream grpc.ServerStreamingServer[pb.SubscribeCapabilityResponse]) error {
	return s.host.Subscribe(req, stream)
}

func (s service) ExchangeHTTP(stream grpc.BidiStreamingServer[pb.ExchangeHTTPRequest, pb.ExchangeHTTPResponse]) error {
	return s.host.ExchangeHTTP(stream)
}

// newSite starts a node's providers; change completes how they are made.
func newSite(t *testing.T, id string, change func(*Config)) *site {
	t.Helper()
	messages := newMessages(t, id)
	cfg := Config{
		NodeID: id, NodeName: id, Log: slog.New(slog.DiscardHandler),
		Open: Engines{NodeName: id, Messages: func(context.Context) (*messaging.Server, error) { return messages, nil }, Log: slog.New(slog.DiscardHandler)}.Open,
	}
	if change != nil {
		change(&cfg)
	}
	s := &site{t: t, id: id, peers: rpc.NewPeers(), server: rpc.NewServer(rpc.ServerConfig{})}
	s.Host = New(cfg, s.peers)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	pb.RegisterNodeAgentServiceServer(s.server, service{host: s.Host})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.server.Serve(l) // its end is the test's
	}()
	t.Cleanup(func() {
		s.Close()
		s.server.Stop()
		<-served
		if err := s.peers.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newMessages(t *testing.T, name string) *messaging.Server {
	t.Helper()
	s, err := messaging.NewServer(messaging.Config{ClusterName: "test", ServerName: name, Listen: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// told is what a leader says of some providers, all of which run on the same nodes.
func told(version uint64, providers []*pb.Provider, on ...*site) *pb.SetProvidersRequest {
	req := &pb.SetProvidersRequest{Fence: &pb.Fence{Term: 1}, Version: version, Providers: providers, Places: map[string]*pb.ProviderPlaces{}}
	for _, p := range providers {
		places := &pb.ProviderPlaces{}
		for _, s := range on {
			places.Nodes = append(places.Nodes, &pb.ProviderPlace{NodeId: s.id, RpcAddr: s.addr})
		}
		req.Places[p.GetProviderId()] = places
	}
	return req
}

func running(id, kind, backend string, more ...string) *pb.Provider {
	p := &pb.Provider{ProviderId: id, ProviderType: kind, State: pb.ProviderState_PROVIDER_STATE_RUNNING, Config: map[string]string{capability.ConfigBackend: backend}}
	for n := 0; n+1 < len(more); n += 2 {
		p.Config[more[n]] = more[n+1]
	}
	return p
}

// session returns what an instance on a node may do with one provider.
func (s *site) session(id, kind string, permissions ...string) *capability.Session {
	grant := &pb.Grant{CapabilityId: id, ProviderType: kind, Permissions: permissions}
	session := capability.NewSession(capability.Caller{InstanceID: "0190a000-0000-7000-8000-000000000001", Name: "guest"}, []*pb.Grant{grant}, s, quiet{})
	s.t.Cleanup(session.Close)
	return session
}

func wantStatus(t *testing.T, err error, want capability.Status) {
	t.Helper()
	if err == nil && want != capability.OK || err != nil && capability.FromError(err).Status != want {
		t.Fatalf("got %v, want %s", err, want)
	}
}

// within waits until something holds.
func within(t *testing.T, d time.Duration, what string, holds func() error) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < d; time.Sleep(5 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatalf("waited in vain for %s: %v", what, err)
}

func unequal[T comparable](what string, got, want T) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s is %v, want %v", what, got, want)
}
