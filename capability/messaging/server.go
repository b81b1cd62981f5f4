package messaging

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/capability"
)

// Config is what a node tells its NATS server.
type Config struct {
	ClusterName string // servers of another one are refused as routes
	ServerName  string // unique in the cluster

	Listen     string // the IP to listen on
	Advertise  string // the IP that others dial; default Listen
	ClientPort int    // for NATS clients from outside; 0 for any that is free
	RoutePort  int    // for the other nodes' servers; 0 for any that is free

	Log        *slog.Logger          // what NATS calls a notice is debug here; nil for nowhere
	Registerer prometheus.Registerer // takes the metrics; nil for nobody
}

func (c Config) withDefaults() Config {
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate says what can't work.
func (c Config) Validate() error {
	switch {
	case c.ClusterName == "":
		return errors.New("the NATS server has no cluster name")
	case c.ServerName == "":
		return errors.New("the NATS server has no name")
	case net.ParseIP(c.Listen) == nil:
		return fmt.Errorf("listen address %q of the NATS server: want an IP", c.Listen)
	case net.ParseIP(c.Advertise) == nil:
		return fmt.Errorf("advertised address %q of the NATS server: want an IP", c.Advertise)
	case !validPort(c.ClientPort), !validPort(c.RoutePort):
		return fmt.Errorf("ports %d and %d of the NATS server: want from 0 to 65535", c.ClientPort, c.RoutePort)
	case c.ClientPort == c.RoutePort && c.ClientPort != 0:
		return fmt.Errorf("port %d of the NATS server is for clients and routes alike: want two", c.ClientPort)
	}
	return nil
}

func validPort(n int) bool { return n >= 0 && n <= 65535 }

// startTimeout is how long a server may take to listen. It takes milliseconds, unless the host is starved.
const startTimeout = 10 * time.Second

// Server is the NATS server of a node. It lives once: closed, it is not started again.
type Server struct {
	cfg  Config
	nats *server.Server
	log  *serverLog
	own  string // what a connection of the node itself shows; never leaves the process

	mu sync.Mutex // guards options; held while they are replaced, so that routes follow calls in order

	options *server.Options
}

// NewServer returns a server that does not listen yet.
func NewServer(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: &serverLog{log: cfg.Log}, own: rand.Text()}
	s.options = &server.Options{
		ServerName:      cfg.ServerName,
		Host:            cfg.Listen,
		Port:            orRandom(cfg.ClientPort),
		ClientAdvertise: advertised(cfg.Advertise, cfg.ClientPort),
		MaxPayload:      capability.MaxMessage,
		NoSigs:          true, // signals are the node's
		NoLog:           true, // no log of its own: ours is set below
		NoSystemAccount: true, // nobody asks it, and it would talk to itself

		CustomClientAuthentication: admission{own: s.own},
		// Has the server tell its clients that they need not say who they are.
		Users: []*server.User{{Username: anybody}}, NoAuthUser: anybody,

		Cluster: server.ClusterOpts{
			Name:      cfg.ClusterName,
			Host:      cfg.Listen,
			Port:      orRandom(cfg.RoutePort),
			Advertise: advertised(cfg.Advertise, cfg.RoutePort),
			PoolSize:  -1, // one connection for each pair of nodes: a pool is for many accounts, and there is one
		},
	}
	// NATS keeps what it is given and completes it.
	nats, err := server.NewServer(s.options.Clone())
	if err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	nats.SetLoggerV2(s.log, cfg.Log.Enabled(context.Background(), slog.LevelDebug), false, false)
	s.nats = nats
	return s, s.registerMetrics()
}

const anybody = "anybody"

// admission lets everybody in, and nobody but the node itself publish what only nodes say.
type admission struct{ own string }

// Check implements [server.Authentication].
func (a admission) Check(c server.ClientAuthentication) bool {
	user := &server.User{} // without a name, or NATS would hang up when routes change
	if subtle.ConstantTimeCompare([]byte(c.GetOpts().Token), []byte(a.own)) != 1 {
		user.Permissions = &server.Permissions{Publish: &server.SubjectPermission{
			Deny: []string{capability.ClusterSubject, capability.ClusterSubject + ".>"},
		}}
	}
	c.RegisterUser(user)
	return true
}

func orRandom(port int) int {
	if port == 0 {
		return server.RANDOM_PORT
	}
	return port
}

// advertised has port 0 where it is not known yet: NATS then takes the one that it gets.
func advertised(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// Start begins to listen, and returns when clients and routes can connect.
func (s *Server) Start() error {
	s.nats.Start()
	// NATS says it has failed only to its log, so it is asked in small steps.
	for began := time.Now(); time.Since(began) < startTimeout && s.log.fatal() == ""; {
		if s.nats.ReadyForConnections(100 * time.Millisecond) {
			return nil
		}
	}
	s.Close()
	if why := s.log.fatal(); why != "" {
		return fmt.Errorf("NATS server: %s", why)
	}
	return fmt.Errorf("NATS server: not ready to serve within %s", startTimeout)
}

// Run waits until ctx ends, and then closes the server that was started. It returns earlier, with an error, if the
// server ends by itself.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.nats.Shutdown)
	defer stop()
	s.nats.WaitForShutdown()
	if ctx.Err() == nil {
		return fmt.Errorf("NATS server: it ended by itself: %s", s.log.fatal())
	}
	return nil
}

// Close ends all connections, and returns when nothing of the server runs any more.
func (s *Server) Close() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// ClientAddr returns where NATS clients connect to, once the server has started.
func (s *Server) ClientAddr() string { return s.reached(s.nats.Addr()) }

// RouteAddr returns what the other nodes give to their SetRoutes, once the server has started.
func (s *Server) RouteAddr() string {
	if addr := s.nats.ClusterAddr(); addr != nil {
		return s.reached(addr)
	}
	return ""
}

func (s *Server) reached(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return net.JoinHostPort(s.cfg.Advertise, strconv.Itoa(tcp.Port))
	}
	return ""
}

// SetRoutes says where the servers of the other nodes are, as IP:PORT; the server's own address among them does no
// harm. It connects to those that are new, for ever if need be, ends its connections to those that are
// gone, and leaves the others alone: messages pass on meanwhile. A server that is there and still wants this one keeps its own
// connection, until it is told too.
func (s *Server) SetRoutes(addrs []string) error {
	own := s.RouteAddr()
	wanted := slices.Clone(addrs)
	slices.Sort(wanted)
	var routes []*url.URL
	for _, addr := range slices.Compact(wanted) {
		if addr == own {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("route %q of the NATS server: %w", addr, err)
		}
		routes = append(routes, &url.URL{Scheme: "nats", Host: addr})
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	same := func(a, b *url.URL) bool { return a.Host == b.Host }
	if slices.EqualFunc(routes, s.options.Routes, same) {
		return nil
	}
	options := s.options.Clone()
	options.Routes = routes
	if err := s.nats.ReloadOptions(options.Clone()); err != nil {
		return fmt.Errorf("routes of the NATS server: %w", err)
	}
	s.options = options
	return nil
}

// Routes returns how many other servers are connected.
func (s *Server) Routes() int { return s.nats.NumRoutes() }

// InProcessConn returns a connection to the server that does not leave the process.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// serverLog is where NATS logs to. Its lines are made by it, so they are an attribute of ours.
type serverLog struct {
	log *slog.Logger

	mu sync.Mutex // guards last

	last string // what was fatal
}

func (l *serverLog) line(level slog.Level, format string, args []any) {
	if ctx := context.Background(); l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "a library says", "part", "nats", "text", fmt.Sprintf(format, args...))
	}
}

// Fatalf keeps why the server can't go on; NATS would end the process here.
func (l *serverLog) Fatalf(format string, args ...any) {
	l.mu.Lock()
	l.last = fmt.Sprintf(format, args...)
	l.mu.Unlock()
	l.line(slog.LevelError, format, args)
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Errorf is a warning to us, save where it is of a route to a node that is just starting, or that gossip has not given up yet.
func (l *serverLog) Errorf(format string, args ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(format, "Error trying to connect to route") {
		level = slog.LevelDebug
	}
	l.line(level, format, args)
}

// Warnf and those below are of the levels that they are called by, but for notices, which are details to us.
func (l *serverLog) Warnf(format string, args ...any)   { l.line(slog.LevelWarn, format, args) }
func (l *serverLog) Noticef(format string, args ...any) { l.line(slog.LevelDebug, format, args) }
func (l *serverLog) Debugf(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
func (l *serverLog) Tracef(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
