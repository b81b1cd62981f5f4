package provider

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestMetricsTellWhichProvidersWork(t *testing.T) {
	a, b := newSite(t, "a", nil), newSite(t, "b", nil)
	o := newOpener(a)
	o.failures.Store(1 << 20)
	a.cfg.Open = o.open
	stopped := running("idle", "kv", "memory:")
	stopped.State = pb.ProviderState_PROVIDER_STATE_STOPPED
	a.Set(told(1, []*pb.Provider{running("cache", "kv", "memory:"), stopped}, a))
	up := newCollector(a.Host)
	if n := testutil.CollectAndCount(up); n != 1 {
		t.Fatalf("one provider is to run here, and %d are told of", n)
	}
	if v := testutil.ToFloat64(up); v != 0 {
		t.Errorf("its backend is away, and it is up: %v", v)
	}
	o.failures.Store(0)
	within(t, 10*time.Second, "the provider to be up", func() error { return unequal("up", testutil.ToFloat64(up), 1) })
	b.Set(told(1, []*pb.Provider{running("cache", "kv", "memory:")}, a))
	if n := testutil.CollectAndCount(newCollector(b.Host)); n != 0 {
		t.Error("what runs elsewhere is told of here, too")
	}
}
