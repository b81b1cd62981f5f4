package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/netutil"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// maxConns bounds open connections, so that visitors cannot take the file descriptors that gossip and
	// Raft need. Further ones wait to be accepted.
	maxConns = 1024
	// maxRequests bounds what is asked of the leader at once; further requests are refused.
	maxRequests = 64
	// maxStreams bounds the followers of events at once; further ones are refused.
	maxStreams = 256
	// maxHeader bounds a request's line and headers, in bytes.
	maxHeader = 32 << 10

	// headerTimeout is for a request's headers, readTimeout for the whole of it; no request has a body.
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	// answerTimeout is for an answer: a list of 10,000 instances has 7 MB, and a phone's link is slow.
	answerTimeout = time.Minute
	// idleTimeout is how long a connection is kept for a next request: longer than monitoring's usual 15 s.
	idleTimeout = time.Minute
	// callTimeout is how long the control plane may take to begin its answer. It answers in milliseconds,
	// or says that there is no leader.
	callTimeout = 5 * time.Second
	// probeTimeout is for the page and for readiness, where a late answer is a wrong one.
	probeTimeout = 2 * time.Second
	// heartbeat keeps proxies, which commonly cut off after 30 to 60 s of silence, from ending a stream.
	heartbeat = 15 * time.Second
	// shutdownTimeout is how long requests may go on after the server is told to stop.
	shutdownTimeout = 3 * time.Second
)

// Config is what a server needs. All fields but Registerer and Log are required.
type Config struct {
	// Addr is where to listen, host:port.
	Addr string
	// ControlPlane asks this very node, which forwards to the leader.
	ControlPlane pb.ControlPlaneServiceClient
	// Providers asks it about capability providers.
	Providers pb.ProviderServiceClient
	// Gatherer has the metrics to show.
	Gatherer prometheus.Gatherer
	// Registerer takes those of this server; nil for nobody.
	Registerer prometheus.Registerer
	// NodeName and Version are this node's own.
	NodeName, Version string
	// Log; nil: none.
	Log *slog.Logger
	// Tracer makes the spans of requests; nil: none.
	Tracer trace.Tracer
}

// Server serves HTTP.
type Server struct {
	cfg  Config
	http *http.Server
	ln   net.Listener // nil before Listen

	counts *metrics
	views  map[string]*view
	hub    *hub

	requests, streams, draws gate
	heartbeat                time.Duration
	// ending ends when the server stops: streams would hold it up for ever.
	ending context.Context
	end    context.CancelFunc

	// met is set once the node has known a leader. Until then it is starting.
	met atomic.Bool
}

// New returns a server that does nothing yet.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, counts: newMetrics(), views: views(), heartbeat: heartbeat,
		requests: make(gate, maxRequests), streams: make(gate, maxStreams), draws: make(gate, maxDraws),
	}
	s.hub = newHub(s)
	s.ending, s.end = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:                      s.handler(),
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 answerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
	s.http.RegisterOnShutdown(s.end)
	return s
}

// Met says that the node has known a leader, so that from now on one that is missing has been lost.
func (s *Server) Met() { s.met.Store(true) }

// Listen opens the port. Callers are held until Run serves them.
func (s *Server) Listen() error {
	ln, err := net.Listen("tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen on the http port: %w", err)
	}
	s.ln = netutil.LimitListener(ln, maxConns)
	return nil
}

// Addr returns where the server listens, once it does.
func (s *Server) Addr() net.Addr {
	if s.ln == nil {
		return nil
	}
	return s.ln.Addr()
}

// Run serves until ctx ends. Then it ends streams, gives other requests a moment to finish, and
// returns when all is closed.
func (s *Server) Run(ctx context.Context) error {
	if s.ln == nil {
		return errors.New("serve http: Listen was not called")
	}
	if err := s.registerMetrics(); err != nil {
		return fmt.Errorf("register the metrics of http: %w", err)
	}
	var looking sync.WaitGroup
	looking.Go(func() { s.hub.run(s.ending) })
	defer looking.Wait()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := s.http.Shutdown(bounded); err != nil {
			s.cfg.Log.DebugContext(ctx, "cut off http requests that did not end in time", "err", errors.Join(err, s.http.Close()))
		}
	})
	err := s.http.Serve(s.ln)
	if stop() { // it ended by itself
		return errors.Join(fmt.Errorf("serve http: %w", err), s.Close())
	}
	<-stopped
	return nil
}

// Close gives the port back at once, whether Run was called or not.
func (s *Server) Close() error {
	s.end()
	err := s.http.Close()
	if s.ln != nil {
		err = errors.Join(err, s.ln.Close())
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// handler is the table of what is served.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for path := range s.views {
		if path == "/" {
			path = "/{$}"
		}
		mux.HandleFunc(path, s.bounded(s.page))
	}
	mux.HandleFunc("/page.css", asset("page.css", "text/css; charset=utf-8"))
	mux.HandleFunc("/page.js", asset("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("/page.svg", asset("page.svg", "image/svg+xml"))
	mux.HandleFunc("/live", s.live)
	mux.HandleFunc("/v1/status", s.bounded(s.status))
	mux.HandleFunc("/v1/members", s.bounded(s.members))
	mux.HandleFunc("/v1/instances", s.bounded(s.instances))
	mux.HandleFunc("/v1/instances/{id}", s.bounded(s.instance))
	mux.HandleFunc("/v1/instances/{id}/logs", s.logs)
	mux.HandleFunc("/v1/providers", s.bounded(s.providers))
	mux.HandleFunc("/v1/history", s.bounded(s.history))
	mux.HandleFunc("/v1/events", s.events)
	mux.HandleFunc("/healthz", healthy)
	mux.HandleFunc("/readyz", s.ready)
	mux.Handle("/metrics", s.metrics())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, rpc.Errorf(rpc.InvalidRequest, "there is nothing at %q; the API is below /v1/", r.URL.Path))
	})
	return s.guard(mux)
}

// bounded refuses a request when too many are being served.
func (s *Server) bounded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.enter() {
			s.fail(w, r, rpc.Errorf(rpc.ResourceExhausted, "this node answers %d requests already; try again in a moment", cap(s.requests)))
			return
		}
		defer s.requests.leave()
		next(w, r)
	}
}

// gate lets in as many as it has room for.
type gate chan struct{}

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }
