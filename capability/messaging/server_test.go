package messaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/capability"
)

func TestMessagesPassBetweenNodesOnceRoutesAreSet(t *testing.T) {
	a, b := start(t, Config{ServerName: "a"}), start(t, Config{ServerName: "b"})
	ca, cb := connect(t, a), connect(t, b)
	came, _ := hear(t, cb, "orders.*", "")

	if err := ca.Publish(t.Context(), "orders.1", []byte("alone")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ca.Check(t.Context()), cb.Check(t.Context())); err != nil {
		t.Fatal(err)
	}
	if len(came) > 0 {
		t.Fatal("a message passed between servers that have no route")
	}

	route(t, a, b)
	reaches(t, ca, "orders.2", came)
	if err := ca.Publish(t.Context(), "orders.3", []byte("together")); err != nil {
		t.Fatal(err)
	}
	if m := next(t, came); m.Subject != "orders.3" || string(m.Data) != "together" || m.Reply != "" {
		t.Fatalf("got %+v", m)
	}
}

func TestRoutesGrowShrinkAndGrowAgain(t *testing.T) {
	s := startMany(t, 3)
	conns := []*Conn{connect(t, s[0]), connect(t, s[1]), connect(t, s[2])}
	came, _ := hear(t, conns[2], "news", "")
	reaches(t, conns[0], "news", came)
	reaches(t, conns[1], "news", came)

	// The third leaves: everybody hears of it by gossip, it too.
	if err := s[2].SetRoutes(nil); err != nil {
		t.Fatal(err)
	}
	route(t, s[0], s[1])
	eventually(t, "the third is alone", func() bool { return s[2].Routes() == 0 })
	if err := conns[0].Publish(t.Context(), "news", nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conns[0].Check(t.Context()), conns[2].Check(t.Context())); err != nil {
		t.Fatal(err)
	}
	if len(came) > 0 {
		t.Fatal("a message came to a server without routes")
	}
	other, _ := hear(t, conns[1], "other", "")
	reaches(t, conns[0], "other", other)

	route(t, s...)
	reaches(t, conns[0], "news", came)
}

// A node that was told of one other learns of nothing else by itself that would do harm, and messages pass while
// routes change.
func TestNoMessageIsLostWhileOtherRoutesChange(t *testing.T) {
	s := startMany(t, 2)
	third := start(t, Config{ServerName: "third"})
	from, to := connect(t, s[0]), connect(t, s[1])
	came, _ := hear(t, to, "count", "")
	reaches(t, from, "count", came)

	const n = 5000
	published := make(chan error, 1)
	var done atomic.Bool
	go func() {
		for i := range n {
			if err := from.Publish(context.Background(), "count", fmt.Append(nil, i)); err != nil {
				published <- err
				return
			}
			if i%50 == 0 { // so that it lasts while routes change
				if err := from.Check(context.Background()); err != nil {
					published <- err
					return
				}
			}
		}
		done.Store(true)
		published <- nil
	}()
	changes := 0
	for ; !done.Load() && changes < 1000; changes++ {
		addrs := []string{s[0].RouteAddr(), s[1].RouteAddr(), third.RouteAddr()}
		if changes%2 == 1 {
			addrs = addrs[:2]
		}
		for _, one := range s {
			if err := one.SetRoutes(addrs); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if m := next(t, came); string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, m.Data)
		}
	}
	t.Logf("%d messages in order over %d changes of the routes", n, changes)
}

func TestReplicasOfAQueueShareTheWorkOfAllNodes(t *testing.T) {
	s := startMany(t, 3)
	var conns []*Conn
	var counts [3]atomic.Int64
	var all atomic.Int64
	for i, one := range s {
		c := connect(t, one)
		conns = append(conns, c)
		if _, err := c.Subscribe(t.Context(), "jobs", "a worker", func(capability.Message) { counts[i].Add(1); all.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	watch, _ := hear(t, conns[0], "jobs", "")
	// A job that comes from each node is done once.
	const n = 300
	for i, c := range conns {
		reaches(t, c, "jobs", watch)
		for range n {
			if err := c.Publish(t.Context(), "jobs", nil); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			next(t, watch)
		}
		eventually(t, fmt.Sprintf("jobs of node %d are done", i), func() bool { return all.Load() >= int64(n*(i+1)) })
	}
	// NATS prefers members on the same server, so each did about what came from its own node.
	for i := range counts {
		if counts[i].Load() < n/2 {
			t.Errorf("node %d did only %d jobs", i, counts[i].Load())
		}
	}
}

func TestRequestIsAnsweredOnAnotherNode(t *testing.T) {
	s := startMany(t, 2)
	ca, cb := connect(t, s[0]), connect(t, s[1])

	_, err := ca.Request(t.Context(), "ask", []byte("hello"))
	want(t, err, capability.Unavailable) // at once, without a deadline: nobody subscribes

	answer(t, cb, "ask", "b")
	eventually(t, "the answer comes", func() bool {
		m, err := ca.Request(t.Context(), "ask", []byte("hello"))
		return err == nil && string(m.Data) == "b heard hello"
	})

	silent, _ := hear(t, cb, "silence", "")
	reaches(t, ca, "silence", silent)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = ca.Request(ctx, "silence", nil)
	want(t, err, capability.Timeout)
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = ca.Request(ctx, "silence", nil)
	want(t, err, capability.Interrupted)
}

func TestServerThatWasKilledIsFoundAgain(t *testing.T) {
	s := startMany(t, 3)
	from := connect(t, s[0])
	route, client := portOf(t, s[1].RouteAddr()), portOf(t, s[1].ClientAddr())
	s[1].Close()
	eventually(t, "the others notice", func() bool { return s[0].Routes() == 1 && s[2].Routes() == 1 })

	back := start(t, Config{ServerName: "n1", ClientPort: client, RoutePort: route})
	// Nobody tells the others anything: to gossip it was a blink.
	eventually(t, "the others connect to it", func() bool { return s[0].Routes() == 2 && back.Routes() == 2 })
	came, _ := hear(t, connect(t, back), "back", "")
	reaches(t, from, "back", came)
}

func TestServerOfAnotherClusterIsRefused(t *testing.T) {
	a, b := start(t, Config{ServerName: "a"}), start(t, Config{ServerName: "b", ClusterName: "another"})
	var refused atomic.Bool // whoever of two hears the other's name first says so
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) {
		if strings.Contains(strings.ToLower(string(p)), "cluster name") {
			refused.Store(true)
		}
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := start(t, Config{ServerName: "c", ClusterName: "third", Log: log})
	for _, s := range []*Server{a, b, c} {
		if err := s.SetRoutes([]string{a.RouteAddr(), b.RouteAddr(), c.RouteAddr()}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "somebody is refused", refused.Load)
	if a.Routes()+b.Routes()+c.Routes() > 0 {
		t.Fatal("servers of different clusters have a route")
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(bytes.Clone(p)); return len(p), nil }

func TestPortInUseIsSaidAtOnce(t *testing.T) {
	a := start(t, Config{ServerName: "a"})
	for _, cfg := range []Config{
		{ServerName: "b", ClusterName: "test", Listen: "127.0.0.1", RoutePort: portOf(t, a.RouteAddr())},
		{ServerName: "b", ClusterName: "test", Listen: "127.0.0.1", ClientPort: portOf(t, a.ClientAddr())},
	} {
		b, err := NewServer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := b.Start(); err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("ports %d and %d: got %v", cfg.ClientPort, cfg.RoutePort, err)
		}
		if took := time.Since(began); took > startTimeout/2 {
			t.Errorf("ports %d and %d: it took %s to say so", cfg.ClientPort, cfg.RoutePort, took)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := start(t, Config{ServerName: "a"})
	c := connect(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection knows", func() bool { return c.Check(t.Context()) != nil })
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	good := Config{ClusterName: "c", ServerName: "s", Listen: "127.0.0.1"}
	for name, spoil := range map[string]func(*Config){
		"no cluster":       func(c *Config) { c.ClusterName = "" },
		"no name":          func(c *Config) { c.ServerName = "" },
		"no address":       func(c *Config) { c.Listen = "" },
		"a name to listen": func(c *Config) { c.Listen = "localhost" },
		"advertise":        func(c *Config) { c.Advertise = "somewhere" },
		"port":             func(c *Config) { c.RoutePort = 70000 },
		"one port":         func(c *Config) { c.RoutePort, c.ClientPort = 7403, 7403 },
	} {
		bad := good
		spoil(&bad)
		if _, err := NewServer(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := start(t, good)
	if err := s.SetRoutes([]string{"nowhere"}); err == nil {
		t.Error("a route without a port is accepted")
	}
	if err := s.SetRoutes([]string{s.RouteAddr(), s.RouteAddr()}); err != nil || s.Routes() != 0 {
		t.Errorf("its own address twice: %v, %d routes", err, s.Routes())
	}
}

// Who hears an event can rely on a node having sent it: neither a guest nor a program from outside can, whatever it says it is.
func TestOnlyNodesPublishWhatTheClusterSays(t *testing.T) {
	servers := startMany(t, 2)
	node := open(t, ConnConfig{Server: servers[0], OfNode: true})
	guests := connect(t, servers[1])
	came, _ := hear(t, guests, "wasmatrix.events.>", "")
	reaches(t, node, "wasmatrix.events.a", came)

	if err := errors.Join(guests.Publish(t.Context(), "wasmatrix.events.forged", nil), guests.Check(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]nats.Option{nil, {nats.UserInfo("node", "node")}, {nats.Token("node")}, {nats.UserInfo(anybody, "")}} {
		nc, err := nats.Connect("nats://"+servers[0].ClientAddr(), append(options, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, subject := range []string{"wasmatrix.events.forged", "wasmatrix"} {
			if err := errors.Join(nc.Publish(subject, nil), nc.Flush()); err != nil {
				t.Fatal(err)
			}
			if err := nc.LastError(); !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s was taken: %v", subject, err)
			}
		}
	}
	// A change of routes asks all clients again who they are.
	if err := errors.Join(servers[1].SetRoutes(nil), servers[1].SetRoutes([]string{servers[0].RouteAddr()}), servers[0].SetRoutes(nil), servers[0].SetRoutes([]string{servers[1].RouteAddr()})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route is back", func() bool { return servers[0].Routes() == 1 })
	reaches(t, node, "wasmatrix.events.b", came)
	if err := errors.Join(guests.Publish(t.Context(), "wasmatrix.events.forged", nil), guests.Check(t.Context()), node.Publish(t.Context(), "wasmatrix.events.true", nil)); err != nil {
		t.Fatal(err)
	}
	if m := next(t, came); m.Subject != "wasmatrix.events.true" {
		t.Errorf("heard %s", m.Subject)
	}
}
