package provider

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// tell tells all sites of providers that run on some of them.
func tell(version uint64, providers []*pb.Provider, on []*site, all ...*site) {
	for _, s := range all {
		s.Set(told(version, providers, on...))
	}
}

func TestAllOperationsReachAnotherNode(t *testing.T) {
	a, b := newSite(t, "a", nil), newSite(t, "b", nil)
	tell(1, []*pb.Provider{running("cache", "kv", "memory:")}, []*site{b}, a, b)
	ctx := t.Context()
	s := a.session("cache", "kv", "kv:read", "kv:write", "kv:delete")
	first, err := s.Set(ctx, "cache", "", "k", []byte("one"), capability.SetOptions{})
	if err != nil || first == 0 {
		t.Fatalf("set: %d, %v", first, err)
	}
	absent := uint64(0)
	_, err = s.Set(ctx, "cache", "", "k", []byte("two"), capability.SetOptions{IfRevision: &absent})
	wantStatus(t, err, capability.Conflict)
	if _, err = s.Set(ctx, "cache", "", "k", []byte("two"), capability.SetOptions{IfRevision: &first, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	e, err := s.Get(ctx, "cache", "", "k")
	if err != nil || string(e.Value) != "two" || e.Revision <= first {
		t.Fatalf("get: %v, %v", e, err)
	}
	revision, ok, err := s.Exists(ctx, "cache", "", "k")
	if err != nil || !ok || revision != e.Revision {
		t.Fatalf("exists: %d, %t, %v", revision, ok, err)
	}
	if _, ok, err := s.Exists(ctx, "cache", "", "nothing"); err != nil || ok {
		t.Fatalf("exists: %t, %v", ok, err)
	}
	_, err = s.Get(ctx, "cache", "", "nothing")
	wantStatus(t, err, capability.NotFound)
	if sum, err := s.Increment(ctx, "cache", "", "n", -7); err != nil || sum != -7 {
		t.Fatalf("increment: %d, %v", sum, err)
	}
	_, err = s.Increment(ctx, "cache", "", "k", 1)
	wantStatus(t, err, capability.InvalidRequest)
	keys, more, err := s.List(ctx, "cache", "", "", "", 1)
	if err != nil || !more || len(keys) != 1 || keys[0] != "k" {
		t.Fatalf("list: %v, %t, %v", keys, more, err)
	}
	if existed, err := s.Delete(ctx, "cache", "", "k", nil); err != nil || !existed {
		t.Fatalf("delete: %t, %v", existed, err)
	}
	_, err = s.Set(ctx, "cache", "", "k", make([]byte, capability.MaxValue), capability.SetOptions{})
	wantStatus(t, err, capability.OK)
}

// TestTheOtherNodeChecksAgain: what a node is asked for by another one it judges itself.
func TestTheOtherNodeChecksAgain(t *testing.T) {
	b := newSite(t, "b", nil)
	b.Set(told(1, []*pb.Provider{running("cache", "kv", "memory:"), running("news", "messaging", "embedded:")}, b))
	conn, err := b.peers.Conn(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	client := pb.NewNodeAgentServiceClient(conn)
	caller := func(id, kind string, permissions ...string) *pb.CapabilityCaller {
		return &pb.CapabilityCaller{InstanceId: "i", Name: "guest", Grant: &pb.Grant{CapabilityId: id, ProviderType: kind, Permissions: permissions}}
	}
	get := func(bucket string) *pb.InvokeCapabilityRequest_KvGet {
		return &pb.InvokeCapabilityRequest_KvGet{KvGet: &pb.KVGet{Bucket: bucket, Key: []byte("k")}}
	}
	say := func(subject string, reply bool) *pb.InvokeCapabilityRequest_Publish {
		return &pb.InvokeCapabilityRequest_Publish{Publish: &pb.MessagingPublish{Subject: subject, Reply: reply}}
	}
	for what, one := range map[string]struct {
		req  *pb.InvokeCapabilityRequest
		want capability.Status
	}{
		"nobody calls":          {&pb.InvokeCapabilityRequest{Operation: get("")}, capability.InvalidRequest},
		"no permission":         {&pb.InvokeCapabilityRequest{Caller: caller("cache", "kv", "kv:write"), Operation: get("")}, capability.PermissionDenied},
		"another's bucket":      {&pb.InvokeCapabilityRequest{Caller: caller("cache", "kv", "kv:read"), Operation: get("other")}, capability.PermissionDenied},
		"its own bucket":        {&pb.InvokeCapabilityRequest{Caller: caller("cache", "kv", "kv:read"), Operation: get("guest")}, capability.NotFound},
		"no such provider":      {&pb.InvokeCapabilityRequest{Caller: caller("nosuch", "kv", "kv:read"), Operation: get("")}, capability.UnknownGrant},
		"a lie about the type":  {&pb.InvokeCapabilityRequest{Caller: caller("news", "kv", "kv:read"), Operation: get("")}, capability.InvalidRequest},
		"no operation":          {&pb.InvokeCapabilityRequest{Caller: caller("cache", "kv", "kv:read")}, capability.InvalidRequest},
		"another's topic":       {&pb.InvokeCapabilityRequest{Caller: caller("news", "messaging", "msg:publish:mine"), Operation: say("theirs", false)}, capability.PermissionDenied},
		"an answer, deaf":       {&pb.InvokeCapabilityRequest{Caller: caller("news", "messaging", "msg:publish:mine"), Operation: say("theirs", true)}, capability.PermissionDenied},
		"an answer by a hearer": {&pb.InvokeCapabilityRequest{Caller: caller("news", "messaging", "msg:subscribe:jobs"), Operation: say("_INBOX.x", true)}, capability.OK},
	} {
		_, err := client.InvokeCapability(t.Context(), one.req)
		e, _ := fromWire(err)
		if got := statusOf(e); got != one.want {
			t.Errorf("%s: got %s (%v), want %s", what, got, err, one.want)
		}
	}
	stream, err := client.SubscribeCapability(t.Context(), &pb.SubscribeCapabilityRequest{Caller: caller("news", "messaging", "msg:subscribe:mine"), Subject: "theirs"})
	if err == nil {
		_, err = stream.Recv()
	}
	if e, _ := fromWire(err); statusOf(e) != capability.PermissionDenied {
		t.Errorf("a subscription to another's topic: %v", err)
	}
}

func statusOf(e *capability.Error) capability.Status {
	if e == nil {
		return capability.OK
	}
	return e.Status
}

// slowKV answers only once it is let, or not at all.
type slowKV struct {
	capability.KV

	asked atomic.Int32
	let   chan struct{}
}

func (s *slowKV) wait(ctx context.Context) error {
	s.asked.Add(1)
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowKV) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.KV.Increment(ctx, bucket, key, by)
}

func (s *slowKV) Get(ctx context.Context, bucket, key string) (capability.Entry, error) {
	if err := s.wait(ctx); err != nil {
		return capability.Entry{}, err
	}
	return s.KV.Get(ctx, bucket, key)
}

// TestNodeLostInMidCall: what may be repeated is, on the next node; of what may not, the guest hears that nobody knows.
func TestNodeLostInMidCall(t *testing.T) {
	for _, operation := range []string{"get", "increment"} {
		t.Run(operation, func(t *testing.T) {
			a, b, c := newSite(t, "a", nil), newSite(t, "b", nil), newSite(t, "c", nil)
			slow := &slowKV{let: make(chan struct{})}
			open := b.cfg.Open
			b.cfg.Open = func(ctx context.Context, d Definition) (Engine, error) {
				e, err := open(ctx, d)
				slow.KV, e.KV = e.KV, slow
				return e, err
			}
			tell(1, []*pb.Provider{running("cache", "kv", "memory:")}, []*site{b, c}, a, b, c)
			if _, err := c.session("cache", "kv", "kv:write").Set(t.Context(), "cache", "", "k", []byte("7"), capability.SetOptions{}); err != nil {
				t.Fatal(err)
			}
			s := a.session("cache", "kv", "kv:read", "kv:write")
			done := make(chan error, 1)
			go func() {
				var err error
				if operation == "get" {
					_, err = s.Get(t.Context(), "cache", "", "k")
				} else {
					_, err = s.Increment(t.Context(), "cache", "", "k", 1)
				}
				done <- err
			}()
			within(t, 5*time.Second, "the call to be under way", func() error { return unequal("calls", slow.asked.Load(), 1) })
			b.server.Stop() // as a process that is killed
			err := <-done
			if operation == "get" {
				wantStatus(t, err, capability.OK)
				return
			}
			wantStatus(t, err, capability.Timeout)
			if !strings.Contains(err.Error(), "not known whether") {
				t.Errorf("the guest is told %q", err)
			}
			if e, err := c.session("cache", "kv", "kv:read").Get(t.Context(), "cache", "", "k"); err != nil || string(e.Value) != "7" {
				t.Errorf("it was repeated on another node: %q, %v", e.Value, err)
			}
		})
	}
}

func TestProviderThatIsAwayAnswersWithinItsTimeout(t *testing.T) {
	a, b := newSite(t, "a", nil), newSite(t, "b", nil)
	tell(1, []*pb.Provider{running("cache", "kv", "memory:", "timeout", "300ms")}, []*site{b}, a, b)
	b.server.Stop()
	began := time.Now()
	wantStatus(t, look(t, a.session("cache", "kv", "kv:read")), capability.Unavailable)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestMessagesReachGuestsOnOtherNodes(t *testing.T) {
	a, b, c := newSite(t, "a", nil), newSite(t, "b", nil), newSite(t, "c", nil)
	news := []*pb.Provider{running("news", "messaging", "embedded:")}
	tell(1, news, []*site{b, c}, a, b, c)
	hears := a.session("news", "messaging", "msg:subscribe:jobs.>")
	says := b.session("news", "messaging", "msg:publish")
	if _, err := hears.Subscribe(t.Context(), "news", "jobs.*", false); err != nil {
		t.Fatal(err)
	}
	if err := says.Publish(t.Context(), "news", "jobs.1", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, m, err := hears.Receive(t.Context(), 0, 5*time.Second)
	if err != nil || string(m.Data) != "hello" || m.Subject != "jobs.1" {
		t.Fatalf("%v, %v", m, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, _, err := hears.Receive(t.Context(), 0, 5*time.Second)
		if err == nil {
			err = hears.Answer(t.Context(), []byte("yes"))
		}
		answered <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	reply, err := says.Ask(ctx, "news", "jobs.2", []byte("there?"))
	if err != nil || string(reply.Data) != "yes" {
		t.Fatalf("%v, %v", reply, err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	// The node of the subscription is lost, and another one gets it. Their servers are not connected here.
	b.server.Stop()
	says = c.session("news", "messaging", "msg:publish")
	within(t, 10*time.Second, "a message by way of the other node", func() error {
		if err := says.Publish(t.Context(), "news", "jobs.3", []byte("again")); err != nil {
			return err
		}
		_, m, err := hears.Receive(t.Context(), 0, 100*time.Millisecond)
		if err == nil {
			err = unequal("the message", string(m.Data), "again")
		}
		return err
	})
	hears.SetGrants(nil)
	_, _, err = hears.Receive(t.Context(), 0, 5*time.Second)
	wantStatus(t, err, capability.UnknownGrant)
}

func TestHTTPRequestsAreMadeByAnotherNode(t *testing.T) {
	big := bytes.Repeat([]byte("body "), 400_000)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Was", r.Header.Get("X-Is")+r.Method)
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.Copy(w, r.Body)
		case "/away":
			http.Redirect(w, r, "http://localhost:1/", http.StatusFound)
		case "/long":
			for r.Context().Err() == nil {
				if _, err := w.Write(big); err != nil {
					return
				}
			}
		}
	}))
	defer web.Close()
	a, b := newSite(t, "a", nil), newSite(t, "b", nil)
	tell(1, []*pb.Provider{running("web", "http", "direct:", "max_body", "3MB")}, []*site{b}, a, b)
	at, err := url.Parse(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := a.session("web", "http", "http:request", "http:domain:"+at.Host)
	resp, err := s.Request(t.Context(), "web", &capability.HTTPRequest{
		Method: "POST", URL: web.URL + "/echo", Header: []capability.HTTPField{{Name: "X-Is", Value: "it-"}}, Body: bytes.NewReader(big), Length: int64(len(big)),
	})
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(back, big) || resp.Status != http.StatusTeapot {
		t.Fatalf("%d, %d of %d bytes, %v", resp.Status, len(back), len(big), err)
	}
	if !strings.Contains(fmt.Sprint(resp.Header), "it-POST") {
		t.Errorf("the header is %v", resp.Header)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	_, err = s.Request(t.Context(), "web", &capability.HTTPRequest{Method: "GET", URL: web.URL + "/away"})
	wantStatus(t, err, capability.PermissionDenied)
	resp, err = s.Request(t.Context(), "web", &capability.HTTPRequest{Method: "GET", URL: web.URL + "/long"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	wantStatus(t, err, capability.Exhausted)
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzInvoke: what another node sends is never a panic.
func FuzzInvoke(f *testing.F) {
	for _, req := range []*pb.InvokeCapabilityRequest{
		{},
		{Caller: &pb.CapabilityCaller{InstanceId: "i", Name: "n", Grant: &pb.Grant{CapabilityId: "cache", ProviderType: "kv", Permissions: []string{"kv:read", "kv:write"}}},
			CallId: []byte{1}, Operation: &pb.InvokeCapabilityRequest_KvSet{KvSet: &pb.KVSet{Key: []byte("k"), Value: []byte("v"), IfRevision: proto.Uint64(1)}}},
		{Caller: &pb.CapabilityCaller{InstanceId: "i", Name: "n", Grant: &pb.Grant{CapabilityId: "cache", ProviderType: "kv", Permissions: []string{"kv:read"}}},
			Operation: &pb.InvokeCapabilityRequest_KvList{KvList: &pb.KVList{Limit: 1 << 31}}},
	} {
		raw, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	h := New(Config{NodeID: "a", NodeName: "a", Open: Engines{Log: slog.New(slog.DiscardHandler)}.Open}, rpc.NewPeers())
	f.Cleanup(h.Close)
	h.Set(&pb.SetProvidersRequest{
		Providers: []*pb.Provider{running("cache", "kv", "memory:", "timeout", "20ms")},
		Places:    map[string]*pb.ProviderPlaces{"cache": {Nodes: []*pb.ProviderPlace{{NodeId: "a"}}}},
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		req := &pb.InvokeCapabilityRequest{}
		if proto.Unmarshal(raw, req) != nil {
			return
		}
		resp, err := h.Invoke(t.Context(), req)
		if (resp == nil) == (err == nil) {
			t.Fatalf("%v, %v", resp, err)
		}
		if err != nil && rpc.CodeOf(err) == rpc.Internal {
			t.Fatalf("an internal error: %v", err)
		}
	})
}
