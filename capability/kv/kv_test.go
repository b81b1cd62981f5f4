package kv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/kvtest"
)

func open(t *testing.T, url, provider string) Engine {
	t.Helper()
	e, err := Open(t.Context(), Config{URL: url, ProviderID: provider})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func keepsTheContract(t *testing.T, url string) {
	t.Helper()
	kvtest.Run(t, func(t *testing.T, provider string) capability.KV {
		t.Helper()
		e := open(t, url, provider)
		waitFor(t, "the backend to be there", func() error { return e.Check(t.Context()) })
		return e
	})
}

func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	keepsTheContract(t, "memory:")
}

func TestRedisKeepsTheContract(t *testing.T) {
	t.Parallel()
	keepsTheContract(t, "redis://"+startRedis(t).addr+"/3")
}

func TestEtcdKeepsTheContract(t *testing.T) {
	t.Parallel()
	keepsTheContract(t, "etcd://"+startEtcd(t).addr)
}

func TestNATSKeepsTheContract(t *testing.T) {
	t.Parallel()
	keepsTheContract(t, startNATS(t, nil).url())
}

// A server before 2.11 removes nothing by itself; what such a one has made is used as it is.
func TestNATSWithoutTimesToLiveKeepsTheContract(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	conn, err := nats.Connect(n.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kvtest.Run(t, func(t *testing.T, provider string) capability.KV {
		t.Helper()
		if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "wasmatrix_" + escape(provider, '_', "-")}); err != nil {
			t.Fatal(err)
		}
		return open(t, n.url(), provider)
	})
}

func waitFor(t *testing.T, what string, unmet func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := unmet()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %v", patience, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func wantStatus(t *testing.T, err error, want capability.Status) {
	t.Helper()
	if e, ok := errors.AsType[*capability.Error](err); !ok || e.Status != want {
		t.Errorf("it ends with %v, want %s", err, want)
	}
}

// A backend that is away is an error of calls, which end in time; when it is back, so are the keys.
func TestEnginesOutliveTheirServers(t *testing.T) {
	t.Parallel()
	redis, etcd, n := startRedis(t, "--appendfsync", "always"), startEtcd(t), startNATS(t, nil)
	for _, test := range []struct {
		url         string
		stop, start func()
	}{
		{"redis://" + redis.addr, redis.stop, redis.start},
		{"etcd://" + etcd.addr, etcd.stop, etcd.start},
		{n.url(), n.stop, n.start},
	} {
		t.Run(test.url[:4], func(t *testing.T) {
			t.Parallel()
			e := open(t, test.url, "kv")
			waitFor(t, "the backend to be there", func() error { return e.Check(t.Context()) })
			r, err := e.Set(t.Context(), "b", "k", []byte("v"), capability.SetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			test.stop()
			call := func(name string, do func(context.Context) error) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				began := time.Now()
				err := do(ctx)
				if s := capability.FromError(err); s == nil || s.Status != capability.Unavailable && s.Status != capability.Timeout {
					t.Errorf("%s without a server: %v", name, err)
				}
				if took := time.Since(began); took > 4*time.Second {
					t.Errorf("%s without a server took %s", name, took)
				}
			}
			call("get", func(ctx context.Context) error { _, err := e.Get(ctx, "b", "k"); return err })
			call("set", func(ctx context.Context) error {
				_, err := e.Set(ctx, "b", "other", nil, capability.SetOptions{})
				return err
			})
			call("list", func(ctx context.Context) error { _, _, err := e.List(ctx, "b", "", "", 1); return err })
			call("check", e.Check)
			test.start()
			waitFor(t, "the backend to be back", func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				return e.Check(ctx)
			})
			if got, err := e.Get(t.Context(), "b", "k"); err != nil || string(got.Value) != "v" || got.Revision != r {
				t.Errorf("after it came back: %q at %d, %v", got.Value, got.Revision, err)
			}
		})
	}
}

// A server that is not there yet, or never, is no reason not to open.
func TestOpenNeedsNoServer(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"redis", "nats", "etcd"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			e := open(t, scheme+"://someone:s3cret@"+freeAddr(t), "kv")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := e.Check(ctx)
			if s := capability.FromError(err); s == nil || s.Status != capability.Unavailable && s.Status != capability.Timeout {
				t.Errorf("check: %v", err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, err), "s3cret") {
				t.Errorf("the password is shown: %v", err)
			}
		})
	}
}

func TestServerThatNeverAnswersIsATimeout(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	for _, scheme := range []string{"redis", "nats", "etcd"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			e, err := Open(t.Context(), Config{URL: scheme + "://" + ln.Addr().String(), ProviderID: "kv"})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err = e.Get(ctx, "b", "k")
			if s := capability.FromError(err); s == nil || s.Status != capability.Unavailable && s.Status != capability.Timeout {
				t.Errorf("get: %v", err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestPasswordsAreUsedAndNeverShown(t *testing.T) {
	t.Parallel()
	const password = "p@ss/w:rd"
	redis := startRedis(t, "--requirepass", password)
	n := startNATS(t, func(o *server.Options) { o.Username, o.Password = "someone", password })
	hosts := map[string]string{"redis": redis.addr, "nats": strings.TrimPrefix(n.url(), "nats://")}
	users := map[string]string{"redis": "default", "nats": "someone"}
	for scheme, host := range hosts {
		good := open(t, scheme+"://"+users[scheme]+":p%40ss%2Fw%3Ard@"+host, "kv")
		waitFor(t, "the backend to be there", func() error { return good.Check(t.Context()) })
		bad, err := Open(t.Context(), Config{URL: scheme + "://" + users[scheme] + ":wr0ng@" + host, ProviderID: "kv"})
		if err != nil {
			if strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("%s shows the password: %v", scheme, err)
			}
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = bad.Get(ctx, "b", "k")
		cancel()
		if s := capability.FromError(err); s == nil || s.Status != capability.Unavailable && s.Status != capability.Timeout {
			t.Errorf("%s with a wrong password: %v", scheme, err)
		}
		if err != nil && strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%s shows the password: %v", scheme, err)
		}
		_ = bad.Close()
	}
}

func TestMemoryHasALimit(t *testing.T) {
	e, err := Open(t.Context(), Config{URL: "memory:", ProviderID: "kv", MaxMemory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	value := make([]byte, 300<<10)
	for i := range 3 {
		if _, err := e.Set(t.Context(), "b", fmt.Sprint(i), value, capability.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = e.Set(t.Context(), "b", "3", value, capability.SetOptions{})
	wantStatus(t, err, capability.Exhausted)
	if _, err := e.Delete(t.Context(), "b", "0", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Set(t.Context(), "b", "3", value, capability.SetOptions{}); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
}
