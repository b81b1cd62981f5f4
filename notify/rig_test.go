package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/capability/messaging"
	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/controlplane"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// quick is a pace for tests.
var quick = pace{attempt: patience, again: time.Millisecond, againAtMost: 10 * time.Millisecond, giveUp: time.Minute, retryAfterAtMost: 20 * time.Millisecond}

// seat is whether a node leads.
type seat struct {
	mu      sync.Mutex // guards all below
	leads   bool
	changed chan struct{}
}

func (s *seat) ClusterID() string { return "c1" }

func (s *seat) Leadership() cluster.Leadership {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cluster.Leadership{Self: s.leads}
}

func (s *seat) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *seat) rules(leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads = leads
	close(s.changed)
	s.changed = make(chan struct{})
}

// voter is one node: its memory of events, and its notifier, which runs.
type voter struct {
	*seat

	log     *controlplane.EventLog
	server  *messaging.Server
	metrics *prometheus.Registry
	*Notifier
}

// cluster2 is a cluster of two voters, of which none leads yet.
func cluster2(t *testing.T, cfg Config) (a, b *voter) {
	t.Helper()
	a, b = newVoter(t, cfg, "a"), newVoter(t, cfg, "b")
	if err := a.server.SetRoutes([]string{b.server.RouteAddr()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the voters know each other", func() bool { return a.server.Routes() == 1 && b.server.Routes() == 1 })
	return a, b
}

func newVoter(t *testing.T, cfg Config, name string) *voter {
	t.Helper()
	server, err := messaging.NewServer(messaging.Config{ClusterName: "c1", ServerName: name, Listen: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	cfg.Messages = func(ctx context.Context) (*messaging.Conn, error) {
		return messaging.Open(ctx, messaging.ConnConfig{Server: server, OfNode: true})
	}
	cfg.Version = "v1"
	if cfg.pace == (pace{}) {
		cfg.pace = quick
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	v := &voter{seat: &seat{changed: make(chan struct{})}, log: controlplane.NewEventLog(), server: server, metrics: prometheus.NewRegistry()}
	cfg.Registerer = v.metrics
	if v.Notifier, err = New(cfg, v.seat, v.log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return v
}

// counted returns the sum of a metric for one receiver.
func (v *voter) counted(t *testing.T, metric, to string) float64 {
	t.Helper()
	families, err := v.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == metric && m.GetLabel()[0].GetValue() == to {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s of %s", metric, to)
	return 0
}

// event is the nth of a source, as an agent makes it, some seconds ago.
func event(source string, n, ago int) *pb.Event {
	return &pb.Event{
		EventId: fmt.Sprintf("%s/boot/%d", source, n), Type: "instance.started", NodeId: source, InstanceId: fmt.Sprintf("i%d", n), Name: "web",
		Time: timestamppb.New(time.Now().Add(-time.Duration(ago) * time.Second)), Details: map[string]string{"k": "v"},
	}
}

func events(source string, from, to int) (all []*pb.Event) {
	for n := from; n <= to; n++ {
		all = append(all, event(source, n, 0))
	}
	return all
}

// hook is a webhook's other end.
type hook struct {
	*httptest.Server

	mu      sync.Mutex // guards all below
	tried   int
	taken   []string // ids
	answers []http.HandlerFunc
	headers http.Header
	body    []byte
}

// newHook answers as it is told, one request after the other, and then well. An answer that writes nothing is a good one too.
func newHook(t *testing.T, answers ...http.HandlerFunc) *hook {
	t.Helper()
	h := &hook{answers: answers}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

// ServeHTTP implements [http.Handler].
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.mu.Lock()
	h.tried++
	h.headers, h.body = r.Header, body
	answer := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	if len(h.answers) > 0 {
		answer, h.answers = h.answers[0], h.answers[1:]
	}
	h.mu.Unlock()

	status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	answer(status, r)
	if status.status/100 == 2 {
		var e struct {
			ID   string    `json:"id"`
			Data api.Event `json:"data"`
		}
		if json.Unmarshal(body, &e) != nil || e.Data.EventID != e.ID {
			e.ID = "broken: " + string(body)
		}
		h.mu.Lock()
		h.taken = append(h.taken, e.ID)
		h.mu.Unlock()
	}
}

type statusWriter struct {
	http.ResponseWriter

	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (h *hook) ids() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.taken...)
}

func (h *hook) requests() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tried
}

func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for n := 0; n < len(headers); n += 2 {
			w.Header().Set(headers[n], headers[n+1])
		}
		w.WriteHeader(code)
	}
}

// hear returns what a NATS client from outside hears.
func hear(t *testing.T, s *messaging.Server, subject string) <-chan *nats.Msg {
	t.Helper()
	nc, err := nats.Connect("nats://" + s.ClientAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	came := make(chan *nats.Msg, 10_000)
	if _, err := nc.ChanSubscribe(subject, came); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return came
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %s: %s", patience, what)
}
