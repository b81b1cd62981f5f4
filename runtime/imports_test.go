package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmatrix/wasmatrix/capability"
)

var everything = []string{"kv=kv:read,kv:write,kv:delete", "http=http:request", "messaging=msg:publish,msg:subscribe"}

const any64 = -1 // any revision, or for ever

func TestKeysAndValues(t *testing.T) {
	c := newCallee(t, newEngine(t), newEngines().session(t, "guest", everything...))
	c.want(ABIVersion, "abi_version")
	c.want(int64(capability.NotFound), "kv_get", "kv", "", "a")
	if got := c.result(); !strings.Contains(got, `"a"`) {
		t.Errorf("the message of what failed: %q", got)
	}
	c.want(0, "kv_set", "kv", "", "a", "one", 0, 0)
	if c.number() != 1 {
		t.Errorf("revision %d", c.number())
	}
	c.want(int64(capability.Conflict), "kv_set", "kv", "", "a", "two", 0, 0)
	c.want(0, "kv_set", "kv", "", "a", "two", 60_000, 1)
	c.want(3, "kv_get", "kv", "guest", "a") // its own bucket, by name
	if c.result() != "two" || c.number() != 2 {
		t.Errorf("got %q at revision %d", c.result(), c.number())
	}
	c.want(1, "kv_exists", "kv", "", "a")
	c.want(0, "kv_exists", "kv", "", "b")
	c.want(0, "kv_increment", "kv", "", "n", 1<<40)
	if c.number() != 1<<40 {
		t.Errorf("sum %d", c.number())
	}
	c.want(0, "kv_set", "kv", "", "empty", "", 0, any64)
	c.want(0, "kv_get", "kv", "", "empty")
	c.want(2, "kv_list", "kv", "", "", "", 2)
	if got := c.items(); !slices.Equal(got, []string{"a", "empty"}) || c.number() != 1 {
		t.Errorf("listed %q, more %d", got, c.number())
	}
	c.want(1, "kv_list", "kv", "", "", "empty", 0)
	if got := c.items(); !slices.Equal(got, []string{"n"}) || c.number() != 0 {
		t.Errorf("listed %q, more %d", got, c.number())
	}
	c.want(int64(capability.Conflict), "kv_delete", "kv", "", "a", 1)
	c.want(1, "kv_delete", "kv", "", "a", any64)
	c.want(0, "kv_delete", "kv", "", "a", any64)
}

// What a guest passes may change as soon as the call is over.
func TestValuesAreCopied(t *testing.T) {
	engines := newEngines()
	c := newCallee(t, newEngine(t), engines.session(t, "guest", everything...))
	c.want(0, "kv_set", "kv", "", "key", "value", 0, any64)
	c.want(0, "msg_subscribe", "messaging", "s", 0)
	c.want(0, "msg_publish", "messaging", "s", "value")
	if !c.memory.Write(0, make([]byte, 1024)) {
		t.Fatal("the memory is smaller than that")
	}
	c.want(5, "kv_get", "kv", "", "key")
	if c.result() != "value" {
		t.Errorf("the store holds %q", c.result())
	}
	c.want(0, "msg_receive", 0, 0)
	if got := c.items(); !slices.Equal(got, []string{"s", "value"}) {
		t.Errorf("received %q", got)
	}
}

func TestMessages(t *testing.T) {
	engines := newEngines()
	e := newEngine(t)
	c := newCallee(t, e, engines.session(t, "worker", everything...))
	c.want(int64(capability.InvalidRequest), "msg_receive", 0, 0)
	c.want(0, "msg_subscribe", "messaging", "jobs.*", 0)
	id := int(c.number())
	c.want(int64(capability.Timeout), "msg_receive", id, 1)

	answered := make(chan string, 1)
	asker := newCallee(t, e, engines.session(t, "asker", everything...))
	go func() {
		asker.call("msg_request", "messaging", "jobs.a", "question", 0)
		answered <- asker.result()
	}()
	c.want(1, "msg_receive", id, any64)
	if got := c.items(); !slices.Equal(got, []string{"jobs.a", "question"}) || c.number() != int64(id) {
		t.Errorf("received %q of %d", got, c.number())
	}
	c.want(0, "msg_reply", "answer")
	if got := <-answered; got != "answer" {
		t.Errorf("answered %q", got)
	}
	c.want(int64(capability.InvalidRequest), "msg_reply", "again")
	c.want(0, "msg_dropped")
	c.want(0, "msg_unsubscribe", id)
	c.want(int64(capability.InvalidRequest), "msg_unsubscribe", id)
	c.want(int64(capability.Unavailable), "msg_request", "messaging", "jobs.a", "question", 0)
	c.want(int64(capability.InvalidRequest), "msg_publish", "messaging", "jobs.*", "x")
}

// newServer serves what tests of HTTP ask for.
func newServer(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Asked", r.Header.Get("X-Ask"))
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 1<<16))
		}
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(big) })
	over := make(chan struct{})
	mux.HandleFunc("/never", func(http.ResponseWriter, *http.Request) { <-over })
	s := httptest.NewServer(mux)
	t.Cleanup(func() {
		close(over)
		s.Close()
	})
	return s
}

// body reads the rest of a response.
func (c *callee) body(request int64) string {
	c.tb.Helper()
	var all bytes.Buffer
	const at, size = 4096, 60_000
	for {
		n := c.call("http_read", int(request), at, size)
		if n < 0 {
			c.tb.Fatalf("http_read: %d (%s)", n, c.result())
		}
		if n == 0 {
			return all.String()
		}
		b, _ := c.memory.Read(at, uint32(n))
		all.Write(b)
	}
}

func TestHTTP(t *testing.T) {
	server := newServer(t)
	c := newCallee(t, newEngine(t), newEngines().session(t, "guest", everything...))
	// Of known and of unknown length, and with none.
	for _, length := range []int{200_000, -1, 0} {
		request := c.call("http_open", "http", "POST", server.URL+"/echo", string(list("X-Ask", "why?")), length, 0)
		var sent int
		for part := strings.Repeat("wasmatrix ", 5000); length != 0 && sent < 200_000; sent += len(part) {
			c.want(int64(len(part)), "http_write", int(request), part)
		}
		c.want(http.StatusCreated, "http_send", int(request))
		header := map[string]string{}
		for pair := range slices.Chunk(c.items(), 2) {
			header[pair[0]] = pair[1]
		}
		if header["X-Asked"] != "why?" || header["X-Length"] != fmt.Sprint(length) {
			t.Errorf("length %d: header %q", length, header)
		}
		if got := c.body(request); got != strings.Repeat("wasmatrix ", sent/10) {
			t.Errorf("length %d: sent %d bytes, got %d", length, sent, len(got))
		}
		c.want(0, "http_read", int(request), 0, 10) // and so it stays
		c.want(int64(capability.InvalidRequest), "http_send", int(request))
		c.want(int64(capability.InvalidRequest), "http_write", int(request), "x")
		c.want(0, "http_close", int(request))
		c.want(0, "http_close", int(request))
		c.want(int64(capability.InvalidRequest), "http_read", int(request), 0, 10)
	}
}

func TestHTTPThatGoesWrong(t *testing.T) {
	server := newServer(t)
	c := newCallee(t, newEngine(t), newEngines().session(t, "guest", everything...))
	open := func(url string, length int) int {
		t.Helper()
		n := c.call("http_open", "http", "POST", url, "", length, 0)
		if n <= 0 {
			t.Fatalf("http_open: %d (%s)", n, c.result())
		}
		return int(n)
	}
	invalid := int64(capability.InvalidRequest)
	c.want(invalid, "http_open", "http", "POST", server.URL, "\x01\x00", 0, 0)          // no list
	c.want(invalid, "http_open", "http", "POST", server.URL, string(list("a")), 0, 0)   // a name without a value
	c.want(invalid, "http_open", "http", "POST", server.URL, "\xff\xff\xff\xffa", 0, 0) // an item of 4 GiB
	c.want(invalid, "http_open", "http", "POST", server.URL, "", -2, 0)
	c.want(invalid, "http_open", "http", "POST", server.URL, "", 0, -1)

	injected := c.call("http_open", "http", "GET", server.URL+"/echo", string(list("X-Ask", "a\r\nX-Other: b")), 0, 0)
	c.want(invalid, "http_send", int(injected))
	c.want(0, "http_close", int(injected))
	if got := c.result(); !strings.Contains(got, "header") {
		t.Errorf("closing took the message away: %q", got)
	}

	short := open(server.URL+"/echo", 10)
	c.want(invalid, "http_read", short, 4096, 10)
	c.want(invalid, "http_write", short, "more than ten bytes")
	c.want(3, "http_write", short, "ten")
	c.want(invalid, "http_send", short)
	c.want(0, "http_close", short)

	// Nobody takes the body: writing ends, and sending says why.
	nowhere := open("http://127.0.0.1:1/", -1)
	part := strings.Repeat("x", 60_000)
	deadline := time.Now().Add(10 * time.Second)
	for c.call("http_write", nowhere, part) == int64(len(part)) {
		if time.Now().After(deadline) {
			t.Fatal("somebody takes it all")
		}
	}
	c.want(int64(capability.Unavailable), "http_send", nowhere)
	c.want(int64(capability.Unavailable), "http_read", nowhere, 4096, 10)

	// A body that never ends is the guest's to leave.
	endless := open(server.URL+"/endless", 0)
	c.want(http.StatusOK, "http_send", endless)
	if n := c.call("http_read", endless, 4096, 60_000); n <= 0 {
		t.Errorf("read %d", n)
	}
	c.want(0, "http_close", endless)

	c.want(0, "http_close", nowhere)
	for range maxExchanges {
		open(server.URL+"/echo", 0)
	}
	c.want(int64(capability.Exhausted), "http_open", "http", "POST", server.URL, "", 0, 0)
}

func TestBadArgumentsAreRefusedAndHarmNothing(t *testing.T) {
	engines := newEngines()
	c := newCallee(t, newEngine(t), engines.session(t, "guest", everything...))
	before, _ := c.memory.Read(0, c.memory.Size())
	before = bytes.Clone(before)
	size := uint64(c.memory.Size())
	const kv, huge = 0, math.MaxUint32
	c.memory.WriteString(kv, "kv\xff key")
	before = append([]byte("kv\xff key"), before[7:]...)
	for name, at := range map[string][2]uint64{
		"a byte beyond the end":          {size, 1},
		"over the end":                   {size - 1, 2},
		"4 GiB":                          {0, huge},
		"4 GiB from the end":             {huge, huge},
		"the last byte of 4 GiB":         {huge, 1},
		"from 2 GiB on, which is -2 GiB": {1 << 31, 1 << 31},
		"no UTF-8":                       {2, 1},
		"no bytes, which is no key":      {0, 0},
		"no bytes, nowhere":              {huge, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range []struct {
				name string
				args []uint64
			}{
				{"kv_get", []uint64{kv, 2, 0, 0, at[0], at[1]}},
				{"kv_exists", []uint64{kv, 2, 0, 0, at[0], at[1]}},
				{"kv_set", []uint64{kv, 2, 0, 0, at[0], at[1], 0, 0, 0, 0}},
				{"kv_delete", []uint64{kv, 2, 0, 0, at[0], at[1], 0}},
				{"kv_increment", []uint64{kv, 2, 0, 0, at[0], at[1], 0}},
			} {
				got, err := c.raw(f.name, f.args...)
				if err != nil || got != int64(capability.InvalidRequest) {
					t.Fatalf("%s: %d, %v", f.name, got, err)
				}
				c.memory = memoryOf(c.i.module)
				if b := c.i.host.result; len(b) == 0 || bytes.IndexByte(b, '\n') >= 0 {
					t.Errorf("%s says %q", f.name, b)
				}
			}
			if at[1] == 0 {
				return // which is good anywhere but as a key
			}
			for _, arg := range []int{0, 2, 6} {
				args := []uint64{kv, 2, 0, 0, 4, 3, 0, 0, 0, 0}
				copy(args[arg:], at[:])
				got, err := c.raw("kv_set", args...)
				if want := int64(capability.InvalidRequest); err != nil || got != want && (arg != 6 || name != "no UTF-8") {
					t.Errorf("argument %d: %d, %v", arg, got, err)
				}
			}
			if name != "no UTF-8" {
				if got, err := c.raw("result_read", at[0], 0, at[1]); err != nil || got != int64(capability.InvalidRequest) {
					t.Errorf("result_read: %d, %v", got, err)
				}
			}
		})
	}
	c.want(int64(capability.Exhausted), "kv_get", "kv", "", strings.Repeat("k", maxText+1))
	c.want(int64(capability.InvalidRequest), "kv_get", "kv", "", strings.Repeat("k", capability.MaxKey+1))
	c.want(int64(capability.InvalidRequest), "kv_get", "kv", "no bucket", "k")
	c.want(int64(capability.InvalidRequest), "kv_set", "kv", "", "k", "", 0, -2)
	c.want(int64(capability.InvalidRequest), "kv_set", "kv", "", "k", "", -1, any64)
	c.want(int64(capability.InvalidRequest), "kv_list", "kv", "", "", "", -1)
	c.want(int64(capability.InvalidRequest), "msg_subscribe", "messaging", "s", 2)
	c.want(int64(capability.InvalidRequest), "msg_request", "messaging", "s", "", -1)
	c.want(int64(capability.InvalidRequest), "msg_receive", math.MaxUint32, math.MinInt64)
	after, _ := c.memory.Read(0, 8)
	if !bytes.Equal(after[:7], []byte("kv\xff key")) || !bytes.Equal(before[:7], after[:7]) {
		t.Errorf("memory has changed to %q", after)
	}
}

// With a memory whose end 32 bits cannot name, and with none at all.
func TestGuestsWithOddMemories(t *testing.T) {
	e := newEngine(t)
	m, err := compileBytes(e, caller(0, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	c := startCallee(t, e, m, newEngines().session(t, "guest", everything...))
	for _, args := range [][]uint64{{0, 2, 0, 0, 0, 1}, {0, 0, 0, 0, 0, 0}} {
		if got, err := c.raw("kv_get", args...); err != nil || got >= 0 {
			t.Errorf("%v: %d, %v", args, got, err)
		}
	}
	h := &host{memory: fullMemory{}}
	if _, err := h.view("all", math.MaxUint32, 1); err == nil {
		t.Error("the last of 4 GiB: wazero would panic")
	}
}

// fullMemory is a memory of 4 GiB, in which wazero can't name the end.
type fullMemory struct{ api.Memory }

func (fullMemory) Read(uint32, uint32) ([]byte, bool) { panic("slice bounds out of range") }

func TestSessionDecides(t *testing.T) {
	e := newEngine(t)
	alone := newCallee(t, e, nil)
	for _, f := range hostFunctions() {
		if strings.HasPrefix(f.name, "result_") || f.name == "abi_version" || f.name == "http_close" {
			continue
		}
		want := int64(capability.UnknownGrant)
		if f.name == "http_write" || f.name == "http_send" || f.name == "http_read" {
			want = int64(capability.InvalidRequest) // it can't have opened one
		}
		if got, err := alone.raw(f.name, make([]uint64, len(f.params))...); err != nil || got != want {
			t.Errorf("%s without a session: %d, %v", f.name, got, err)
		}
	}
	engines := newEngines()
	s := engines.session(t, "guest", "kv=kv:read")
	c := newCallee(t, e, s)
	c.want(int64(capability.PermissionDenied), "kv_set", "kv", "", "a", "b", 0, any64)
	c.want(int64(capability.PermissionDenied), "kv_get", "kv", "other", "a")
	c.want(int64(capability.UnknownGrant), "kv_get", "kv2", "", "a")
	c.want(int64(capability.InvalidRequest), "msg_publish", "kv", "a", "b")
	s.SetGrants(nil)
	c.want(int64(capability.UnknownGrant), "kv_get", "kv", "", "a")
	if len(engines.denied) != 4 {
		t.Errorf("denied %q", engines.denied)
	}
}

// broken is a directory with a bug.
type broken struct{ *engines }

func (broken) KV(capability.Call) (capability.KV, error)     { panic("a bug") }
func (broken) HTTP(capability.Call) (capability.HTTP, error) { panic("a bug") }

func TestBugsOfProvidersAreErrors(t *testing.T) {
	d := broken{newEngines()}
	s := capability.NewSession(capability.Caller{InstanceID: "guest-1", Name: "guest"}, parseGrants(t, everything...), d, d)
	c := newCallee(t, newEngine(t), s)
	c.want(int64(capability.Internal), "kv_get", "kv", "", "k")
	for _, length := range []int{0, any64} { // in the guest's own goroutine, and beside it
		request := int(c.call("http_open", "http", "GET", "http://127.0.0.1/", "", length, 0))
		c.want(int64(capability.Internal), "http_send", request)
	}
}

func TestSubscriptionsAreBounded(t *testing.T) {
	c := newCallee(t, newEngine(t), newEngines().session(t, "guest", everything...))
	for range capability.MaxSubscriptions {
		c.want(0, "msg_subscribe", "messaging", "s", 0)
	}
	c.want(int64(capability.Exhausted), "msg_subscribe", "messaging", "s", 0)
	c.want(0, "msg_publish", "messaging", "s", "x")
	c.want(0, "msg_receive", 0, 0)
}

func TestUnknownImportsAreRefusedByName(t *testing.T) {
	e := newEngine(t)
	_, err := compileBytes(e, caller(1, map[string]string{"kv_get": "kv_fly"}))
	var refused *InvalidModuleError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "imports wasmatrix.kv_fly") || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("a function that is not there: %v", err)
	}
	_, err = compileBytes(e, caller(1, map[string]string{"kv_get": "msg_reply", "msg_reply": "kv_get"}))
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "wasmatrix.msg_reply as (i32") || !strings.Contains(err.Error(), "and it is (i32") {
		t.Errorf("functions of other types: %v", err)
	}
}

// Whatever a guest waits for ends with its run, and so does the guest.
func TestWhatWaitsEndsWithTheRun(t *testing.T) {
	server := newServer(t)
	e := newEngine(t)
	for name, wait := range map[string]func(c *callee) error{
		"receive": func(c *callee) error {
			c.call("msg_subscribe", "messaging", "s", 0)
			_, err := c.raw("msg_receive", 0, math.MaxUint64)
			return err
		},
		"request": func(c *callee) error {
			c.call("msg_subscribe", "messaging", "s", 0)
			c.memory.WriteString(0, "messagings")
			_, err := c.raw("msg_request", 0, 9, 9, 1, 0, 0, math.MaxInt64)
			return err
		},
		"send": func(c *callee) error {
			_, err := c.raw("http_send", uint64(c.call("http_open", "http", "GET", server.URL+"/never", "", 0, 0)))
			return err
		},
		"write": func(c *callee) error {
			request := uint64(c.call("http_open", "http", "POST", server.URL+"/never", "", any64, 0))
			for {
				if _, err := c.raw("http_write", request, 0, 60_000); err != nil {
					return err
				}
			}
		},
		"read": func(c *callee) error {
			request := uint64(c.call("http_open", "http", "GET", server.URL+"/endless", "", 0, 0))
			if _, err := c.raw("http_send", request); err != nil { // ended before it was answered
				return err
			}
			for {
				if _, err := c.raw("http_read", request, 0, 60_000); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCallee(t, e, newEngines().session(t, "guest", everything...))
			ctx, cancel := context.WithCancel(c.ctx)
			defer cancel()
			c.ctx = ctx
			ended := make(chan error, 1)
			go func() { ended <- wait(c) }()
			select {
			case err := <-ended:
				t.Fatalf("ended by itself: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			cancel()
			select {
			case err := <-ended:
				if err == nil {
					t.Fatal("the guest goes on")
				}
			case <-time.After(2 * time.Second):
				t.Fatal("still waiting 2 s after the run was ended")
			}
		})
	}
}
