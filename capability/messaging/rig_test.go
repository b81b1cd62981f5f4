package messaging

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/capability"
)

// patience is how long a test waits for what has to come. It is long, since the machine may be busy.
const patience = 20 * time.Second

// start starts a server, on the ports of cfg where it names some.
func start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	cfg.Listen = "127.0.0.1"
	if cfg.ClusterName == "" {
		cfg.ClusterName = "test"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := NewServer(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// startMany starts n servers that know each other.
func startMany(tb testing.TB, n int) []*Server {
	tb.Helper()
	servers := make([]*Server, n)
	for i := range servers {
		servers[i] = start(tb, Config{ServerName: fmt.Sprintf("n%d", i)})
	}
	route(tb, servers...)
	return servers
}

// route gives each server the routes to all, and waits until they are there.
func route(tb testing.TB, servers ...*Server) {
	tb.Helper()
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.RouteAddr())
	}
	for _, s := range servers {
		if err := s.SetRoutes(addrs); err != nil {
			tb.Fatal(err)
		}
	}
	for _, s := range servers {
		eventually(tb, "all routes are there", func() bool { return s.Routes() == len(servers)-1 })
	}
}

func open(tb testing.TB, cfg ConnConfig) *Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	c, err := Open(ctx, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// connect opens a connection to a server that is there.
func connect(tb testing.TB, s *Server) *Conn {
	tb.Helper()
	c := open(tb, ConnConfig{Server: s})
	if err := c.Check(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return c
}

// external connects as somebody who has nothing to do with us.
func external(tb testing.TB, addr string) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect("nats://" + addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// hear subscribes, and returns what comes.
func hear(tb testing.TB, c *Conn, subject, queue string) (<-chan capability.Message, capability.Subscription) {
	tb.Helper()
	came := make(chan capability.Message, 10_000)
	sub, err := c.Subscribe(tb.Context(), subject, queue, func(m capability.Message) { came <- m })
	if err != nil {
		tb.Fatal(err)
	}
	return came, sub
}

// answer subscribes to questions, and answers each with the name.
func answer(tb testing.TB, c *Conn, subject, name string) {
	tb.Helper()
	_, err := c.Subscribe(tb.Context(), subject, "", func(m capability.Message) {
		if m.Reply != "" {
			_ = c.Reply(context.Background(), m.Reply, []byte(name+" heard "+string(m.Data)))
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func next(tb testing.TB, came <-chan capability.Message) capability.Message {
	tb.Helper()
	select {
	case m := <-came:
		return m
	case <-time.After(patience):
		tb.Fatalf("no message within %s", patience)
		return capability.Message{}
	}
}

// reaches waits until what one publishes comes to the other: interest takes a moment to travel.
func reaches(tb testing.TB, from *Conn, subject string, came <-chan capability.Message) {
	tb.Helper()
	eventually(tb, "a message passes", func() bool {
		if from.Publish(tb.Context(), subject, []byte("is anybody there")) != nil {
			return false
		}
		select {
		case <-came:
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	if err := from.Check(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	for quiet := false; !quiet; { // some may have been on their way
		select {
		case <-came:
		case <-time.After(100 * time.Millisecond):
			quiet = true
		}
	}
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	tb.Fatalf("not within %s: %s", patience, what)
}

func want(tb testing.TB, err error, status capability.Status) {
	tb.Helper()
	if e := capability.FromError(err); e == nil || e.Status != status {
		tb.Fatalf("got %v, want %v", err, status)
	}
}

func portOf(tb testing.TB, addr string) int {
	tb.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
