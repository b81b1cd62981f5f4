package runtime

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

// engines are small and real: keys in a map, messages within this process, HTTP by net/http.
type engines struct {
	dropped atomic.Int64

	mu      sync.Mutex // guards all below
	buckets map[string]map[string]capability.Entry
	subs    map[*subscriber]struct{}
	inboxes int
	denied  []string
}

func newEngines() *engines {
	return &engines{buckets: map[string]map[string]capability.Entry{}, subs: map[*subscriber]struct{}{}}
}

// session returns the session of an instance with grants such as "kv=kv:read".
func (e *engines) session(tb testing.TB, name string, grants ...string) *capability.Session {
	tb.Helper()
	s := capability.NewSession(capability.Caller{InstanceID: name + "-1", Name: name}, parseGrants(tb, grants...), e, e)
	tb.Cleanup(s.Close)
	return s
}

func parseGrants(tb testing.TB, grants ...string) []*capability.Grant {
	tb.Helper()
	var all []*capability.Grant
	for _, text := range grants {
		g, err := capability.ParseGrant(text)
		if err != nil {
			tb.Fatal(err)
		}
		g.ProviderType = strings.TrimRight(g.GetCapabilityId(), "2") // kv, http, messaging; kv2 is another kv
		all = append(all, g)
	}
	all, err := capability.Normalize(all)
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

func (e *engines) KV(capability.Call) (capability.KV, error)               { return e, nil }
func (e *engines) HTTP(capability.Call) (capability.HTTP, error)           { return e, nil }
func (e *engines) Messaging(capability.Call) (capability.Messaging, error) { return (*bus)(e), nil }

func (e *engines) Calling(ctx context.Context, _, _ string) context.Context { return ctx }

func (e *engines) Called(context.Context, string, string, string, capability.Status, time.Duration) {}

func (e *engines) Denied(_ capability.Caller, id, operation string, _ *capability.Error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.denied = append(e.denied, id+" "+operation)
}

func (e *engines) Dropped(capability.Caller) {
	e.dropped.Add(1)
}

func (e *engines) Get(_ context.Context, bucket, key string) (capability.Entry, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found, ok := e.buckets[bucket][key]
	if !ok {
		return found, capability.Errorf(capability.NotFound, "there is no key %q in bucket %s", key, bucket)
	}
	return found, nil
}

func (e *engines) Exists(_ context.Context, bucket, key string) (uint64, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found, ok := e.buckets[bucket][key]
	return found.Revision, ok, nil
}

func (e *engines) Set(_ context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.setLocked(bucket, key, value, o.IfRevision)
}

func (e *engines) setLocked(bucket, key string, value []byte, ifRevision *uint64) (uint64, error) {
	found := e.buckets[bucket][key]
	if ifRevision != nil && *ifRevision != found.Revision {
		return 0, capability.Errorf(capability.Conflict, "key %q is at revision %d", key, found.Revision)
	}
	if e.buckets[bucket] == nil {
		e.buckets[bucket] = map[string]capability.Entry{}
	}
	e.buckets[bucket][key] = capability.Entry{Value: value, Revision: found.Revision + 1}
	return found.Revision + 1, nil
}

func (e *engines) Delete(_ context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found, ok := e.buckets[bucket][key]
	if ifRevision != nil && *ifRevision != found.Revision {
		return false, capability.Errorf(capability.Conflict, "key %q is at revision %d", key, found.Revision)
	}
	delete(e.buckets[bucket], key)
	return ok, nil
}

func (e *engines) Increment(_ context.Context, bucket, key string, by int64) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := e.buckets[bucket][key]
	n, err := strconv.ParseInt("0"+string(found.Value), 10, 64)
	if err != nil {
		return 0, capability.Errorf(capability.InvalidRequest, "key %q holds no number", key)
	}
	_, err = e.setLocked(bucket, key, strconv.AppendInt(nil, n+by, 10), nil)
	return n + by, err
}

func (e *engines) List(_ context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key := range e.buckets[bucket] {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(limit, len(keys))], len(keys) > limit, nil
}

func (e *engines) Do(ctx context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, r.Body)
	if err != nil {
		return nil, capability.Errorf(capability.InvalidRequest, "%w", err)
	}
	if req.URL.Host == "" {
		return nil, capability.Errorf(capability.InvalidRequest, "URL %q has no host", r.URL)
	}
	if _, err := r.Allow(req.URL.Hostname(), req.URL.Port()); err != nil {
		return nil, err
	}
	if r.Length > 0 {
		req.ContentLength = r.Length
	}
	for _, f := range r.Header {
		req.Header.Add(f.Name, f.Value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		status := capability.Unavailable
		if _, ok := errors.AsType[*url.Error](err); ok || strings.Contains(err.Error(), "invalid header") || strings.Contains(err.Error(), "unsupported protocol") {
			status = capability.InvalidRequest
		}
		return nil, capability.Errorf(status, "%w", err)
	}
	out := &capability.HTTPResponse{Status: resp.StatusCode, Body: resp.Body}
	for name, values := range resp.Header {
		for _, v := range values {
			out.Header = append(out.Header, capability.HTTPField{Name: name, Value: v})
		}
	}
	return out, nil
}

// bus passes messages on within this process.
type bus engines

type subscriber struct {
	bus     *bus
	pattern []string
	queue   string
	deliver func(capability.Message)
}

func (b *bus) Publish(_ context.Context, subject string, data []byte) error {
	b.send(capability.Message{Subject: subject, Data: data})
	return nil
}

func (b *bus) Reply(ctx context.Context, to string, data []byte) error {
	return b.Publish(ctx, to, data)
}

// send delivers a message, and says to how many.
func (b *bus) send(m capability.Message) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	served, sent := map[string]bool{}, 0
	for s := range b.subs {
		if !s.hears(m.Subject) || s.queue != "" && served[s.queue] {
			continue
		}
		served[s.queue] = true
		sent++
		s.deliver(m)
	}
	return sent
}

func (s *subscriber) hears(subject string) bool {
	tokens := strings.Split(subject, ".")
	for n, want := range s.pattern {
		if want == ">" {
			return len(tokens) > n
		}
		if n >= len(tokens) || want != "*" && want != tokens[n] {
			return false
		}
	}
	return len(tokens) == len(s.pattern)
}

func (b *bus) Request(ctx context.Context, subject string, data []byte) (capability.Message, error) {
	b.mu.Lock()
	b.inboxes++
	inbox := "_INBOX." + strconv.Itoa(b.inboxes)
	b.mu.Unlock()
	answers := make(chan capability.Message, 1)
	s, err := b.Subscribe(ctx, inbox, "", func(m capability.Message) {
		select {
		case answers <- m:
		default: // one is enough
		}
	})
	if err != nil {
		return capability.Message{}, err
	}
	defer func() { _ = s.Close() }()
	if b.send(capability.Message{Subject: subject, Data: data, Reply: inbox}) == 0 {
		return capability.Message{}, capability.Errorf(capability.Unavailable, "nobody subscribes to %s", subject)
	}
	select {
	case m := <-answers:
		return m, nil
	case <-ctx.Done():
		return capability.Message{}, ctx.Err()
	}
}

func (b *bus) Subscribe(_ context.Context, subject, queue string, deliver func(capability.Message)) (capability.Subscription, error) {
	s := &subscriber{bus: b, pattern: strings.Split(subject, "."), queue: queue, deliver: deliver}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = struct{}{}
	return s, nil
}

func (s *subscriber) Close() error {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	delete(s.bus.subs, s)
	return nil
}
