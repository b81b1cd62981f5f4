package messaging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/capability"
)

// backendServer is a NATS server that somebody else runs.
func backendServer(tb testing.TB, port int, options ...func(*server.Options)) *server.Server {
	tb.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true}
	for _, option := range options {
		option(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		tb.Fatal("the backend does not start")
	}
	tb.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func kill(s *server.Server) { s.Shutdown(); s.WaitForShutdown() }

func TestClientFromOutsideTalksToGuests(t *testing.T) {
	s := startMany(t, 2)
	ours, theirs := connect(t, s[0]), external(t, s[1].ClientAddr())

	// They hear us.
	sub, err := theirs.SubscribeSync("from.guest")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a guest is heard", func() bool {
		_ = ours.Publish(t.Context(), "from.guest", []byte("hello"))
		m, err := sub.NextMsg(50 * time.Millisecond)
		return err == nil && string(m.Data) == "hello"
	})

	// We hear them, ask them, and are asked.
	came, _ := hear(t, ours, "to.>", "")
	eventually(t, "a guest hears", func() bool {
		_ = theirs.Publish("to.guest.1", []byte("hi"))
		select {
		case m := <-came:
			return m.Subject == "to.guest.1" && string(m.Data) == "hi"
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	answer(t, ours, "ask.guest", "guest")
	eventually(t, "a guest answers", func() bool {
		m, err := theirs.Request("ask.guest", []byte("this"), time.Second)
		return err == nil && string(m.Data) == "guest heard this"
	})
	if _, err := theirs.Subscribe("ask.them", func(m *nats.Msg) { _ = m.Respond([]byte("well")) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a guest asks", func() bool {
		m, err := ours.Request(t.Context(), "ask.them", nil)
		return err == nil && string(m.Data) == "well"
	})
}

// NATS says that it is connected from a goroutine of its own, perhaps before it has returned the connection.
func TestConnectionIsUsedAsSoonAsItIsSaidToBeThere(t *testing.T) {
	s := start(t, Config{ServerName: "a"})
	c, err := Open(t.Context(), ConnConfig{Server: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	nc := c.nats
	c.nats = nil // as before it is returned
	c.mu.Unlock()
	c.disconnected(nil)
	c.connected(nc)
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBackendGoesAwayAndReturns(t *testing.T) {
	backend := backendServer(t, server.RANDOM_PORT)
	addr := backend.Addr().String()
	c := open(t, ConnConfig{Backend: "nats://" + addr})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	came, _ := hear(t, c, "steady", "")
	silent, _ := hear(t, c, "silence", "")

	// A question is on its way when the backend dies.
	asked := make(chan error, 1)
	go func() {
		_, err := c.Request(context.Background(), "silence", nil)
		asked <- err
	}()
	next(t, silent)
	kill(backend)
	select {
	case err := <-asked:
		want(t, err, capability.Unavailable)
	case <-time.After(patience):
		t.Fatal("a question waits for a backend that is gone")
	}

	// While it is away everything is refused at once, and nothing is kept.
	eventually(t, "the connection knows", func() bool { return c.Check(t.Context()) != nil })
	want(t, c.Check(t.Context()), capability.Unavailable)
	for range 1000 {
		want(t, c.Publish(t.Context(), "steady", make([]byte, 64<<10)), capability.Unavailable)
	}
	_, err := c.Request(t.Context(), "steady", nil)
	want(t, err, capability.Unavailable)
	_, err = c.Subscribe(t.Context(), "new", "", func(capability.Message) {})
	want(t, err, capability.Unavailable)

	// It is back, and so are the subscriptions.
	backendServer(t, portOf(t, addr))
	eventually(t, "the connection is back", func() bool { return c.Check(t.Context()) == nil })
	if err := c.Publish(t.Context(), "steady", []byte("again")); err != nil {
		t.Fatal(err)
	}
	if m := next(t, came); string(m.Data) != "again" {
		t.Fatalf("got %.20q: was something kept?", m.Data)
	}
}

func TestBackendMayComeLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()

	c := open(t, ConnConfig{Backend: "nats://" + addr})
	want(t, c.Check(t.Context()), capability.Unavailable)
	want(t, c.Publish(t.Context(), "x", nil), capability.Unavailable)
	backendServer(t, portOf(t, addr))
	eventually(t, "the connection is there", func() bool { return c.Check(t.Context()) == nil })
}

// A backend that accepts and says nothing costs nobody more than their deadline.
func TestBackendThatIsSilentIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c, err := Open(ctx, ConnConfig{Backend: "nats://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want(t, c.Check(t.Context()), capability.Unavailable)
}

func TestSecretsAreNeitherSaidNorLogged(t *testing.T) {
	const secret = "s3cr3t"
	var mu sync.Mutex
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) {
		mu.Lock()
		defer mu.Unlock()
		logged.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	all := func() string {
		mu.Lock()
		defer mu.Unlock()
		return logged.String()
	}

	backend := backendServer(t, server.RANDOM_PORT, func(o *server.Options) { o.Username, o.Password = "me", "another" })
	addr := backend.Addr().String()
	c := open(t, ConnConfig{Backend: "nats://me:" + secret + "@" + addr, Log: log})
	eventually(t, "the wrong password is refused", func() bool {
		err := c.Check(t.Context())
		if err == nil {
			t.Fatal("a wrong password is accepted")
		}
		if strings.Contains(err.Error(), secret) {
			t.Fatalf("the password is in %q", err)
		}
		return strings.Contains(strings.ToLower(err.Error()), "authorization")
	})
	kill(backend)

	// The password is put right at the backend: nobody has to restart us.
	backendServer(t, portOf(t, addr), func(o *server.Options) { o.Username, o.Password = "me", secret })
	eventually(t, "the right password is accepted", func() bool { return c.Check(t.Context()) == nil })
	if strings.Contains(all(), secret) {
		t.Fatalf("the password is in the log:\n%s", all())
	}

	for _, bad := range []string{
		"nats://me:" + secret + "@", "http://me:" + secret + "@host", "nats://me:" + secret + "@host:port", "nats://me:" + secret + "@host/path",
		"nats://me:" + secret + "@host?" + secret, "://" + secret, "nats://me:" + secret + "@a,nats://me:other" + secret + "@b", "", secret, "nats://me:" + secret + "%zz@host",
	} {
		if err := ValidateBackend(bad); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: got %v", bad, err)
		}
		if _, err := Open(t.Context(), ConnConfig{Backend: bad}); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestBackendURL(t *testing.T) {
	for s, want := range map[string]backend{
		"nats://a":                      {servers: []string{"nats://a:4222"}},
		"tls://a:1,b:2":                 {servers: []string{"tls://a:1", "tls://b:2"}},
		"nats://u:p%40@a, b:2":          {servers: []string{"nats://a:4222", "nats://b:2"}, user: "u", password: "p@"},
		"nats://t0ken@a:1,nats://[::1]": {servers: []string{"nats://a:1", "nats://[::1]:4222"}, token: "t0ken"},
		"nats://u:p@a,nats://u:p@b/":    {servers: []string{"nats://a:4222", "nats://b:4222"}, user: "u", password: "p"},
	} {
		if got, err := parseBackend(s); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, %v, want %+v", s, got, err, want)
		}
	}
}

func TestNothingIsDeliveredOnceCloseHasReturned(t *testing.T) {
	s := start(t, Config{ServerName: "a"})
	from, to := connect(t, s), connect(t, s)
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = from.Publish(context.Background(), "flood", []byte("x"))
			}
		}
	})
	var delivered atomic.Int64
	for round := range 50 {
		var closed, late atomic.Bool
		sub, err := to.Subscribe(t.Context(), "flood", "", func(capability.Message) {
			delivered.Add(1)
			if closed.Load() {
				late.Store(true)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		before := delivered.Load()
		eventually(t, "messages come", func() bool { return delivered.Load() > before })
		if round%10 == 9 {
			to.Close()
			to = connect(t, s)
		} else if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
		closed.Store(true)
		_ = from.Check(t.Context())
		if late.Load() {
			t.Fatal("a message was delivered after Close")
		}
		if err := sub.Close(); err != nil {
			t.Fatalf("closed twice: %v", err)
		}
	}
	close(stop)
	publisher.Wait()
}

func TestMessagesOfTheLargestSizePass(t *testing.T) {
	s := startMany(t, 2)
	ca, cb := connect(t, s[0]), connect(t, s[1])
	came, _ := hear(t, cb, "big", "")
	reaches(t, ca, "big", came)
	if err := ca.Publish(t.Context(), "big", make([]byte, capability.MaxMessage)); err != nil {
		t.Fatal(err)
	}
	if m := next(t, came); len(m.Data) != capability.MaxMessage {
		t.Fatalf("%d bytes came", len(m.Data))
	}
	want(t, ca.Publish(t.Context(), "big", make([]byte, capability.MaxMessage+1)), capability.Exhausted)
}

// A backend may allow messages that are larger than a guest takes. They are counted, not delivered.
func TestMessageThatIsTooLargeIsCounted(t *testing.T) {
	backend := backendServer(t, server.RANDOM_PORT, func(o *server.Options) { o.MaxPayload = 4 << 20 })
	c := open(t, ConnConfig{Backend: "nats://" + backend.Addr().String()})
	theirs := external(t, backend.Addr().String())
	came, sub := hear(t, c, "big", "")
	for _, size := range []int{2 << 20, 10} {
		if err := theirs.Publish("big", make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if m := next(t, came); len(m.Data) != 10 {
		t.Fatalf("%d bytes came", len(m.Data))
	}
	if n := c.Dropped(); n != 1 {
		t.Fatalf("%d dropped, want 1", n)
	}
	if err := sub.Close(); err != nil || c.Dropped() != 1 {
		t.Fatalf("closed: %v, and %d dropped", err, c.Dropped())
	}
	if _, err := theirs.Subscribe("ask", func(m *nats.Msg) { _ = m.Respond(make([]byte, 2<<20)) }); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Request(t.Context(), "ask", nil)
	want(t, err, capability.Exhausted)
}

// All that could be lost before the inbox decides is lost here, and it is counted.
func TestFloodBeforeADeliveryThatHangsIsBoundedAndCounted(t *testing.T) {
	s := start(t, Config{ServerName: "a"})
	from, to := connect(t, s), connect(t, s)
	hang := make(chan struct{})
	var delivered atomic.Int64
	if _, err := to.Subscribe(t.Context(), "flood", "", func(capability.Message) { <-hang; delivered.Add(1) }); err != nil {
		t.Fatal(err)
	}
	const n = pendingMessages + 1000
	for range n {
		if err := from.Publish(t.Context(), "flood", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := to.Check(t.Context()); err != nil { // the connection is not held up by it
		t.Fatal(err)
	}
	close(hang)
	eventually(t, "the rest is delivered", func() bool { return delivered.Load()+int64(to.Dropped()) == n })
	if to.Dropped() == 0 {
		t.Fatal("nothing was dropped")
	}
}

func TestTenThousandSubscriptionsOnOneConnection(t *testing.T) {
	const n = 10_000
	s := startMany(t, 2)
	ca, cb := connect(t, s[0]), connect(t, s[1])
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	var got atomic.Int64
	for i := range n {
		if _, err := cb.Subscribe(t.Context(), fmt.Sprintf("many.%d", i), "q", func(capability.Message) { got.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d subscriptions in %s, %d bytes each of heap and stacks", n, took, (after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/n)

	came, _ := hear(t, cb, "many.last", "")
	reaches(t, ca, "many.last", came) // interest travels in order
	for i := range n {
		if err := ca.Publish(t.Context(), fmt.Sprintf("many.%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "each hears its own", func() bool { return got.Load() == n })
}

// Who may hear all topics does not hear the answers to others, nor what NATS keeps for itself.
func TestWildcardDoesNotMeanReservedSubjects(t *testing.T) {
	s := start(t, Config{ServerName: "a"})
	c, theirs := connect(t, s), external(t, s.ClientAddr())
	all, _ := hear(t, c, ">", "")
	some, _ := hear(t, c, "*.b.c", "")
	named, _ := hear(t, c, "$KV.>", "")
	for _, subject := range []string{"$KV.b.c", "_INBOX.b.c", "x.b.c"} {
		if err := theirs.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, came := range []<-chan capability.Message{all, some} {
		if m := next(t, came); m.Subject != "x.b.c" {
			t.Errorf("a wildcard hears %s", m.Subject)
		}
	}
	if m := next(t, named); m.Subject != "$KV.b.c" {
		t.Errorf("got %s", m.Subject)
	}
}

func TestQueuesOfDifferentNamesDifferForNATS(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"a b", "a_b", "a+b", "a%20b", "a\tb", "worker", "ä", "a\r\nb"} {
		q := queueName(name)
		if strings.ContainsAny(q, " \t\r\n") {
			t.Errorf("%q has become %q", name, q)
		}
		if other, ok := seen[q]; ok {
			t.Errorf("%q and %q are both %q", name, other, q)
		}
		seen[q] = name
	}
	if queueName("worker-1.x") != "worker-1.x" {
		t.Error("a plain name is changed: clients from outside could not join its queue")
	}
}

// Many guests use one connection from many goroutines, while it breaks and comes back.
func TestHammer(t *testing.T) {
	backend := backendServer(t, server.RANDOM_PORT)
	addr := backend.Addr().String()
	c := open(t, ConnConfig{Backend: "nats://" + addr})
	stop := make(chan struct{})
	var guests sync.WaitGroup
	for g := range 8 {
		guests.Go(func() {
			subject := fmt.Sprintf("guest.%d", g%4)
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				sub, err := c.Subscribe(ctx, subject, "q", func(m capability.Message) {
					if m.Reply != "" {
						_ = c.Reply(context.Background(), m.Reply, m.Data)
					}
				})
				_ = c.Publish(ctx, subject, []byte("p"))
				_, _ = c.Request(ctx, subject, []byte("r"))
				_ = c.Dropped()
				if err == nil {
					_ = sub.Close()
				}
				cancel()
			}
		})
	}
	for range 3 {
		kill(backend)
		eventually(t, "it is away", func() bool { return c.Check(t.Context()) != nil })
		backend = backendServer(t, portOf(t, addr))
		eventually(t, "it is back", func() bool { return c.Check(t.Context()) == nil })
	}
	close(stop)
	guests.Wait()
	c.Close()
	want(t, c.Publish(t.Context(), "x", nil), capability.Unavailable)
	_, err := c.Subscribe(t.Context(), "x", "", func(capability.Message) {})
	want(t, err, capability.Unavailable)
}
