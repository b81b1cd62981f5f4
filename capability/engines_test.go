package capability

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// memory is a KV engine that keeps everything in a map.
type memory struct {
	mu      sync.Mutex // guards all below
	entries map[[2]string]Entry
}

func (m *memory) Get(_ context.Context, bucket, key string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[[2]string{bucket, key}]
	if !ok {
		return Entry{}, Errorf(NotFound, "no key %q", key)
	}
	return e, nil
}

func (m *memory) Exists(ctx context.Context, bucket, key string) (uint64, bool, error) {
	e, err := m.Get(ctx, bucket, key)
	return e.Revision, err == nil, nil
}

func (m *memory) Set(_ context.Context, bucket, key string, value []byte, _ SetOptions) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := [2]string{bucket, key}
	m.entries[at] = Entry{Value: slices.Clone(value), Revision: m.entries[at].Revision + 1}
	return m.entries[at].Revision, nil
}

func (m *memory) Delete(_ context.Context, bucket, key string, _ *uint64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.entries[[2]string{bucket, key}]
	delete(m.entries, [2]string{bucket, key})
	return ok, nil
}

func (m *memory) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	e, _ := m.Get(ctx, bucket, key)
	n, _ := strconv.ParseInt(string(e.Value), 10, 64)
	_, err := m.Set(ctx, bucket, key, strconv.AppendInt(nil, n+by, 10), SetOptions{})
	return n + by, err
}

func (m *memory) List(_ context.Context, bucket, prefix, after string, _ int) ([]string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for at := range m.entries {
		if at[0] == bucket && strings.HasPrefix(at[1], prefix) && at[1] > after {
			keys = append(keys, at[1])
		}
	}
	slices.Sort(keys)
	return keys, false, nil
}

// web is an HTTP engine that goes to one host after another, as redirects would lead it: the hosts are in the path.
type web struct{}

func (web) Do(_ context.Context, r *HTTPRequest) (*HTTPResponse, error) {
	for host := range strings.SplitSeq(r.URL, " ") {
		if _, err := r.Allow(host, "80"); err != nil {
			return nil, err
		}
	}
	return &HTTPResponse{Status: 200, Body: io.NopCloser(strings.NewReader(""))}, nil
}

// bus is a messaging engine within the process. It delivers before Publish returns.
type bus struct {
	mu   sync.Mutex // guards all below
	next int
	subs []*busSub
}

type busSub struct {
	bus            *bus
	subject, queue string

	mu      sync.Mutex // guards all below; held while something is delivered
	deliver func(Message)
}

func (b *bus) Publish(_ context.Context, subject string, data []byte) error {
	b.send(Message{Subject: subject, Data: slices.Clone(data)})
	return nil
}

func (b *bus) Reply(ctx context.Context, to string, data []byte) error {
	return b.Publish(ctx, to, data)
}

func (b *bus) send(m Message) (heard int) {
	b.mu.Lock()
	var to []*busSub
	queues := map[string]bool{}
	b.next++
	for n := range b.subs { // members of a queue take turns
		s := b.subs[(n+b.next)%len(b.subs)]
		if !covers(s.subject, m.Subject) || queues[s.subject+" "+s.queue] {
			continue
		}
		if s.queue != "" {
			queues[s.subject+" "+s.queue] = true
		}
		to = append(to, s)
	}
	b.mu.Unlock()
	for _, s := range to {
		s.mu.Lock()
		if s.deliver != nil {
			s.deliver(m)
		}
		s.mu.Unlock()
	}
	return len(to)
}

func (b *bus) Request(ctx context.Context, subject string, data []byte) (Message, error) {
	answers := make(chan Message, 1)
	b.mu.Lock()
	b.next++
	inbox := "_INBOX." + strconv.Itoa(b.next)
	b.mu.Unlock()
	sub, err := b.Subscribe(ctx, inbox, "", func(m Message) {
		select {
		case answers <- m:
		default:
		}
	})
	if err != nil {
		return Message{}, err
	}
	defer sub.Close()
	if b.send(Message{Subject: subject, Data: slices.Clone(data), Reply: inbox}) == 0 {
		return Message{}, Errorf(Unavailable, "nobody subscribes to %q", subject)
	}
	select {
	case m := <-answers:
		return m, nil
	case <-ctx.Done():
		return Message{}, FromError(ctx.Err())
	}
}

func (b *bus) Subscribe(_ context.Context, subject, queue string, deliver func(Message)) (Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &busSub{bus: b, subject: subject, queue: queue, deliver: deliver}
	b.subs = append(b.subs, s)
	return s, nil
}

func (b *bus) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

func (s *busSub) Close() error {
	s.bus.mu.Lock()
	s.bus.subs = slices.DeleteFunc(s.bus.subs, func(o *busSub) bool { return o == s })
	s.bus.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliver = nil
	return nil
}

// house is a directory with one engine for each type.
type house struct {
	kv  *memory
	bus *bus
}

func newHouse() *house { return &house{kv: &memory{entries: map[[2]string]Entry{}}, bus: &bus{}} }

func (h *house) KV(Call) (KV, error)               { return h.kv, nil }
func (h *house) HTTP(Call) (HTTP, error)           { return web{}, nil }
func (h *house) Messaging(Call) (Messaging, error) { return h.bus, nil }

// counter is an observer that counts.
type counter struct{ called, denied, dropped atomic.Int64 }

func (c *counter) Calling(ctx context.Context, _, _ string) context.Context { return ctx }

func (c *counter) Called(context.Context, string, string, string, Status, time.Duration) {
	c.called.Add(1)
}
func (c *counter) Denied(Caller, string, string, *Error) { c.denied.Add(1) }
func (c *counter) Dropped(Caller)                        { c.dropped.Add(1) }

func statusOf(err error) Status {
	if err == nil {
		return OK
	}
	return FromError(err).Status
}

func want(tb testing.TB, err error, status Status) {
	tb.Helper()
	if got := statusOf(err); got != status {
		tb.Fatalf("got %s (%v), want %s", got, err, status)
	}
}

func messagingGrant(permissions ...string) []*Grant {
	return []*Grant{{CapabilityId: "msg", ProviderType: TypeMessaging, Permissions: permissions}}
}

// guest returns the session of an instance with these permissions for messaging.
func guest(tb testing.TB, h *house, o Observer, permissions ...string) *Session {
	tb.Helper()
	s := NewSession(Caller{InstanceID: "i", Name: "n"}, messagingGrant(permissions...), h, o)
	tb.Cleanup(s.Close)
	return s
}

func subscribe(tb testing.TB, s *Session, subject string) uint32 {
	tb.Helper()
	id, err := s.Subscribe(tb.Context(), "msg", subject, true)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func publish(tb testing.TB, h *house, subject string, data []byte) {
	tb.Helper()
	if err := h.bus.Publish(tb.Context(), subject, data); err != nil {
		tb.Fatal(err)
	}
}
