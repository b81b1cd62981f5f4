package provider

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestProviderOfThisNodeIsCalled(t *testing.T) {
	a := newSite(t, "a", nil)
	if wrong := a.Set(told(1, []*pb.Provider{running("cache", "kv", "memory:")}, a)); len(wrong) > 0 {
		t.Fatalf("wrong: %v", wrong)
	}
	s := a.session("cache", "kv", "kv:read", "kv:write")
	if _, err := s.Set(t.Context(), "cache", "", "k", []byte("v"), capability.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	e, err := s.Get(t.Context(), "cache", "", "k")
	if err != nil || string(e.Value) != "v" {
		t.Fatalf("%v, %v", e, err)
	}
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	a := newSite(t, "a", nil)
	stopped := running("stopped", "kv", "memory:")
	stopped.State = pb.ProviderState_PROVIDER_STATE_STOPPED
	newer := running("newer", "kv", "quantum:") // of a version that knows more
	away := running("away", "kv", "memory:", "timeout", "100ms")
	req := told(1, []*pb.Provider{stopped, newer, away}, a)
	req.Places["away"] = nil
	wrong := a.Set(req)
	if len(wrong) != 1 || wrong["newer"] == "" {
		t.Fatalf("wrong: %v", wrong)
	}
	for id, want := range map[string]capability.Status{
		"stopped": capability.Unavailable, "newer": capability.Unavailable, "away": capability.Unavailable, "gone": capability.UnknownGrant,
	} {
		began := time.Now()
		_, err := a.session(id, "kv", "kv:read").Get(t.Context(), id, "", "k")
		wantStatus(t, err, want)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %s to say %v", id, took, err)
		}
	}
}

// look reads a key that is not there.
func look(t *testing.T, s *capability.Session) error {
	t.Helper()
	_, _, err := s.Exists(t.Context(), "cache", "", "k")
	return err
}

// opener makes engines of memory, counts them, and fails as often as it is told.
type opener struct {
	Engines

	opened, closed, failures atomic.Int32
}

func (o *opener) open(ctx context.Context, d Definition) (Engine, error) {
	if o.failures.Add(-1) >= 0 {
		return Engine{}, errors.New("its backend is away")
	}
	e, err := o.Open(ctx, d)
	o.opened.Add(1)
	shut := e.Close
	e.Close = func() error {
		o.closed.Add(1)
		return shut()
	}
	return e, err
}

func newOpener(a *site) *opener { return &opener{Engines: Engines{NodeName: "a", Log: a.cfg.Log}} }

func TestBackendIsTriedUntilItIsThere(t *testing.T) {
	a := newSite(t, "a", nil)
	o := newOpener(a)
	o.failures.Store(3)
	a.cfg.Open = o.open
	req := told(1, []*pb.Provider{running("cache", "kv", "memory:")}, a)
	if wrong := a.Set(req); wrong["cache"] == "" {
		t.Fatal("its backend is away, and nothing is said to be wrong")
	}
	s := a.session("cache", "kv", "kv:read")
	err := look(t, s)
	wantStatus(t, err, capability.Unavailable)
	within(t, 10*time.Second, "the provider to run", func() error { return unequal("what is wrong", a.failures()["cache"], "") })
	err = look(t, s)
	wantStatus(t, err, capability.OK)
}

func TestOnlyWhatIsConfiguredOtherwiseIsOpenedAnew(t *testing.T) {
	a := newSite(t, "a", nil)
	o := newOpener(a)
	a.cfg.Open = o.open
	cache := running("cache", "kv", "memory:")
	a.Set(told(1, []*pb.Provider{cache}, a))
	again := proto.CloneOf(cache)
	again.Revision++
	a.Set(told(2, []*pb.Provider{again, running("other", "kv", "memory:")}, a))
	if opened, closed := o.opened.Load(), o.closed.Load(); opened != 2 || closed != 0 {
		t.Fatalf("%d engines were opened and %d closed, want 2 and 0", opened, closed)
	}
	changed := running("cache", "kv", "memory:", "timeout", "1s")
	a.Set(told(3, []*pb.Provider{changed}, a))
	if opened, closed := o.opened.Load(), o.closed.Load(); opened != 3 || closed != 2 {
		t.Fatalf("%d engines were opened and %d closed, want 3 and 2", opened, closed)
	}
}

func TestWhatAnEarlierLeaderSaysIsNotTaken(t *testing.T) {
	a := newSite(t, "a", nil)
	cache := []*pb.Provider{running("cache", "kv", "memory:")}
	a.Set(told(2, cache, a))
	a.Set(told(1, nil, a))
	late := told(9, nil, a)
	late.Fence.Term = 0
	a.Set(late)
	err := look(t, a.session("cache", "kv", "kv:read"))
	wantStatus(t, err, capability.OK)
	next := told(1, nil, a)
	next.Fence.Term = 2
	a.Set(next)
	err = look(t, a.session("cache", "kv", "kv:read"))
	wantStatus(t, err, capability.UnknownGrant)
}

func TestProvidersAreRememberedOverARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "providers")
	remembers := func(c *Config) { c.Path = path }
	a := newSite(t, "a", remembers)
	a.Set(told(1, []*pb.Provider{running("cache", "kv", "memory:")}, a))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v: others may read the secrets in it", info, err)
	}
	b := newSite(t, "a", remembers)
	within(t, 5*time.Second, "the provider to run", func() error {
		err := look(t, b.session("cache", "kv", "kv:read"))
		return err
	})
	if err := os.WriteFile(path, []byte("\xff\xff damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newSite(t, "a", remembers)
	err = look(t, c.session("cache", "kv", "kv:read"))
	wantStatus(t, err, capability.UnknownGrant)
	c.Set(told(1, []*pb.Provider{running("cache", "kv", "memory:")}, c))
	err = look(t, c.session("cache", "kv", "kv:read"))
	wantStatus(t, err, capability.OK)
}

// TestProviderStoppedInMidCall: the guest is told at once, and what else runs on the node goes on.
func TestProviderStoppedInMidCall(t *testing.T) {
	a := newSite(t, "a", nil)
	slow := &slowKV{let: make(chan struct{})}
	open := a.cfg.Open
	a.cfg.Open = func(ctx context.Context, d Definition) (Engine, error) {
		e, err := open(ctx, d)
		if d.ID == "slow" {
			slow.KV, e.KV, e.Prompt = e.KV, slow, false
		}
		return e, err
	}
	both := []*pb.Provider{running("slow", "kv", "memory:", "timeout", "1m"), running("cache", "kv", "memory:")}
	a.Set(told(1, both, a))
	done := make(chan error, 1)
	go func() {
		_, err := a.session("slow", "kv", "kv:read", "kv:write").Increment(t.Context(), "slow", "", "n", 1)
		done <- err
	}()
	within(t, 5*time.Second, "the call to be under way", func() error { return unequal("calls", slow.asked.Load(), 1) })
	stopped := proto.CloneOf(both[0])
	stopped.State = pb.ProviderState_PROVIDER_STATE_STOPPED
	a.Set(told(2, []*pb.Provider{stopped, both[1]}, a))
	select {
	case err := <-done:
		wantStatus(t, err, capability.Unavailable)
	case <-time.After(10 * time.Second):
		t.Fatal("the guest waits, and its provider is stopped")
	}
	wantStatus(t, look(t, a.session("cache", "kv", "kv:read")), capability.OK)
}

// TestSubscriptionsOutliveTheirEngine: a provider is stopped and started, or changed, without touching instances.
func TestSubscriptionsOutliveTheirEngine(t *testing.T) {
	for _, at := range []string{"this node", "another node"} {
		t.Run(at, func(t *testing.T) {
			a, b := newSite(t, "a", nil), newSite(t, "b", nil)
			runs := a
			if at == "another node" {
				runs = b
			}
			news := running("news", "messaging", "embedded:")
			tell(1, []*pb.Provider{news}, []*site{runs}, a, b)
			s := a.session("news", "messaging", "msg:subscribe:x", "msg:publish:x")
			if _, err := s.Subscribe(t.Context(), "news", "x", false); err != nil {
				t.Fatal(err)
			}
			hears := func() error {
				if err := s.Publish(t.Context(), "news", "x", []byte("there?")); err != nil {
					return err
				}
				_, _, err := s.Receive(t.Context(), 0, 50*time.Millisecond)
				return err
			}
			within(t, 10*time.Second, "a message", hears)
			stopped := proto.CloneOf(news)
			stopped.State = pb.ProviderState_PROVIDER_STATE_STOPPED
			tell(2, []*pb.Provider{stopped}, []*site{runs}, a, b)
			wantStatus(t, s.Publish(t.Context(), "news", "x", nil), capability.Unavailable)
			tell(3, []*pb.Provider{news}, []*site{runs}, a, b)
			within(t, 10*time.Second, "a message after the stop", hears)
			tell(4, []*pb.Provider{running("news", "messaging", "embedded:", "timeout", "2s")}, []*site{runs}, a, b)
			within(t, 10*time.Second, "a message after the change", hears)
		})
	}
}
