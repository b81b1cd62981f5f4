package rpc

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// LeaderFinder knows who leads, as far as this node has heard.
type LeaderFinder interface {
	// Leader returns where the leader serves gRPC, and whether it is this node; ok is false if none is known.
	Leader() (addr string, self bool, ok bool)
}

// ServerConfig is what a server needs.
type ServerConfig struct {
	Log *slog.Logger // nil: none
	// Leader decides between serving and forwarding; nil: this server serves everything itself.
	Leader LeaderFinder
	// Peers are where forwarded calls go through; required with Leader.
	Peers *Peers
	// Ready says why this node does not serve the control plane just now, for the health service; nil: it always does.
	Ready func(context.Context) error
	// Registerer takes the request metrics; nil: none.
	Registerer prometheus.Registerer
	// Tracer makes the spans of calls; nil for none.
	Tracer trace.Tracer
}

const (
	// serverKeepalive is how long a silent connection goes unasked. With keepaliveTimeout it says after
	// how long a stream to a host that vanished breaks: 10 s. Gossip notices it sooner.
	serverKeepalive = 5 * time.Second
	// minClientKeepalive is how often a client may ask. Ours ask every clientKeepalive; half of it
	// forgives their clocks and other people's settings.
	minClientKeepalive = clientKeepalive / 2
	// handshakeTimeout is how long a caller may take to finish HTTP/2's opening.
	handshakeTimeout = 10 * time.Second
)

// NewServer returns a gRPC server with health and reflection registered; the caller adds its services.
//
// Its handlers return any error: the caller gets it as an [Error]. Their contexts have
// the ids of the request, see package tracing. Stop cancels their contexts and returns when they have; a
// GracefulStop waits for streams that may never end, so give it a bound.
func NewServer(cfg ServerConfig) *grpc.Server {
	unary, stream := Interceptors(cfg)
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverKeepalive, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientKeepalive, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
	)
	healthpb.RegisterHealthServer(s, healthService{ready: cfg.Ready})
	reflection.Register(s)
	return s
}

// Interceptors are what every call to a node passes, in this order: it is observed, a panic becomes its failure, and
// what only the leader serves goes there. A server that is none of gRPC's, as in a simulation, is given them, too.
func Interceptors(cfg ServerConfig) ([]grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	o := newObserver(cfg.Log, cfg.Tracer, cfg.Registerer)
	unary := []grpc.UnaryServerInterceptor{o.unary, o.guardUnary}
	stream := []grpc.StreamServerInterceptor{o.stream, o.guardStream}
	if cfg.Leader != nil {
		f := newForwarder(cfg.Leader, cfg.Peers)
		unary, stream = append(unary, f.unary), append(stream, f.stream)
	}
	return unary, stream
}
