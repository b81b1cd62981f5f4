package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

func TestEachViewIsWholeWithoutAScript(t *testing.T) {
	c := someCluster()
	c.happen(&pb.Event{EventId: "a/1", Type: "instance.crashed", InstanceId: "i2", Name: "job", NodeId: "id-b", Details: map[string]string{"error": "exit code 3"}, Time: timestamppb.New(noon)})
	c.write("i1", "stdout", []byte("it says this"))
	base := serve(t, c)
	for path, wanted := range map[string][]string{
		"/":                                {"Seen by node <bdi>b</bdi>", "<bdi>tests</bdi>", "<title>Overview · tests · wasmatrix</title>", `href="/nodes/a"`, ">draining<", "1 instance crashed", "instance.crashed", "exit code 3"},
		"/instances":                       {">web<", "1 to 1 of 1"},
		"/instances?status=all":            {">web<", ">job<", "exit code 3", "1 to 2 of 2"},
		"/instances?status=crashed":        {">job<"},
		"/instances?q=WE":                  {">web<"},
		"/instances?q=nothing":             {"No instance is like that."},
		"/instances?status=all&sort=-name": {`aria-sort="descending"`},
		"/instances/i1":                    {"it says this", "&lt;&amp;&gt;", "None: it only computes."},
		"/instances/i2":                    {"exit code 3", "instance.crashed", `data-state="crashed"`},
		"/nodes":                           {"disk=ssd", ">draining<"},
		"/nodes/a":                         {"10.0.0.1:7401", ">web<"},
		"/providers":                       {"raft:", "3.5 a second", "half of them within 1 ms"},
		"/events":                          {"instance.crashed", "error=exit code 3"},
		"/events?type=node":                {"No event is like that."},
	} {
		resp, body := get(t, base+path)
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
		for _, want := range wanted {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in %s", path, want, body)
			}
		}
	}
}

// While a cluster is upgraded, its leader may be of an older version.
func TestOverviewOfALeaderWithoutAHistoryHasNoCharts(t *testing.T) {
	resp, body := get(t, serve(t, &plainCluster{})+"/")
	if resp.StatusCode != http.StatusOK || strings.Contains(body, "<figure") || strings.Contains(body, "unknown method") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := get(t, serve(t, someCluster())+"/"); resp.StatusCode != http.StatusOK || strings.Count(body, "<figure") != 4 {
		t.Errorf("with one: %d %s", resp.StatusCode, body)
	}
}

func TestWhatIsNotThereIsNotFoundAndSaysWhat(t *testing.T) {
	base := serve(t, someCluster())
	for path, want := range map[string]struct {
		code int
		word string
	}{
		"/instances/none":        {http.StatusNotFound, "no instance"},
		"/nodes/none":            {http.StatusNotFound, "no node"},
		"/instances/":            {http.StatusNotFound, "no page"},
		"/nothing":               {http.StatusNotFound, "nothing at"},
		"/instances?status=odd":  {http.StatusBadRequest, "status="},
		"/instances?sort=odd":    {http.StatusBadRequest, "sort="},
		"/instances?q=%ff":       {http.StatusNotFound, "not UTF-8"},
		"/live?view=/nothing":    {http.StatusBadRequest, "no page"},
		"/live?view=/instances/": {http.StatusBadRequest, "no page"},
	} {
		if resp, body := get(t, base+path); resp.StatusCode != want.code || !strings.Contains(body, want.word) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// Browsers hold a page to what these say.
func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	base := serve(t, someCluster())
	resp, body := get(t, base+"/")
	for header, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
			"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types pieces",
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
	} {
		if got := resp.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	_, css := get(t, base+"/page.css")
	for _, foreign := range []string{"http://", "https://", `"//`, "style=", "javascript:", " onclick", " onload", "@import", "url("} {
		if strings.Contains(body+css, foreign) {
			t.Errorf("%q is on the page or in its style", foreign)
		}
	}
}

func TestFilesOfThePageMayBeKeptByTheirBuild(t *testing.T) {
	base := serve(t, someCluster())
	for path, kind := range map[string]string{"/page.css": "text/css", "/page.js": "text/javascript", "/page.svg": "image/svg+xml"} {
		old, _ := get(t, base+path+"?another")
		resp, body := get(t, base+path+"?"+build)
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || len(body) == 0 || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %v", path, resp.Header)
		}
		if old.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s of another build may be kept: %v", path, old.Header)
		}
	}
}

// A page of another site reads nothing through a visitor's browser, and cannot hold our connections.
func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	base := serve(t, someCluster())
	own := strings.TrimPrefix(base, "http://")
	_, port, _ := strings.Cut(own, ":")
	for name, c := range map[string]struct {
		host    string
		headers map[string]string
		code    int
	}{
		"by address":            {own, nil, http.StatusOK},
		"by localhost":          {"localhost:" + port, nil, http.StatusOK},
		"by a name of here":     {"node1:" + port, nil, http.StatusOK},
		"by its own name":       {"b", nil, http.StatusOK},
		"by IPv6":               {"[::1]:" + port, nil, http.StatusOK},
		"by somebody's domain":  {"evil.example.com:" + port, nil, http.StatusForbidden},
		"by one that ends so":   {"localhost.example.com", nil, http.StatusForbidden},
		"from its own page":     {own, map[string]string{"Origin": base, "Sec-Fetch-Site": "same-origin"}, http.StatusOK},
		"from another page":     {own, map[string]string{"Origin": "https://evil.example.com"}, http.StatusForbidden},
		"from a file":           {own, map[string]string{"Origin": "null"}, http.StatusForbidden},
		"embedded elsewhere":    {own, map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, http.StatusForbidden},
		"linked from elsewhere": {own, map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, http.StatusOK},
	} {
		req, err := http.NewRequest(http.MethodGet, base+"/v1/status", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		for key, value := range c.headers {
			req.Header.Set(key, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.code {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, c.code)
		}
	}
}

// Where a node is open to others it may have any name: a proxy's, or one of the operator's domain.
func TestNodeThatIsOpenToOthersMayHaveAnyName(t *testing.T) {
	s := newServer(t, "127.0.0.1:0", someCluster())
	base := run(t, s)
	s.cfg.Addr = "10.0.0.1:7402"
	req, err := http.NewRequest(http.MethodGet, base+"/v1/status", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "node1.example.com:7402"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestNodeIsStartingUntilItHasKnownALeader(t *testing.T) {
	c := someCluster()
	c.setDown(rpc.Errorf(rpc.NoLeader, "nobody leads"))
	base := serve(t, c)
	asked := func(path string) (int, string) {
		resp, body := get(t, base+path)
		return resp.StatusCode, body
	}
	for _, path := range []string{"/", "/v1/status", "/v1/members", "/v1/instances", "/v1/events", "/readyz"} {
		if code, body := asked(path); code != http.StatusServiceUnavailable || !strings.Contains(body, "starting") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	c.setDown(nil)
	if code, _ := asked("/v1/status"); code != http.StatusOK {
		t.Errorf("with a leader: %d", code)
	}
	c.setDown(rpc.Errorf(rpc.NoLeader, "nobody leads"))
	if code, body := asked("/v1/status"); code != http.StatusServiceUnavailable || strings.Contains(body, "starting") || !strings.Contains(body, "nobody leads") {
		t.Errorf("the leader is gone: %d %s", code, body)
	}
}

func TestNodeThatHasJoinedIsNotStarting(t *testing.T) {
	c := someCluster()
	c.setDown(rpc.Errorf(rpc.NoLeader, "nobody leads"))
	s := newServer(t, "127.0.0.1:0", c)
	s.Met()
	base := run(t, s)
	if resp, body := get(t, base+"/readyz"); resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "starting") || !strings.Contains(body, "nobody leads") {
		t.Errorf("nobody has asked before: %d %s", resp.StatusCode, body)
	}
}

func TestWhatIsNotThereIsSaidOnce(t *testing.T) {
	_, body := get(t, serve(t, someCluster())+"/instances/none")
	if n := strings.Count(body, "no instance"); n != 1 {
		t.Errorf("said %d times:\n%s", n, body)
	}
}

// The port is open before the node serves gRPC, and must say so at once or soon.
func TestNodeWithoutItsRPCPortIsStarting(t *testing.T) {
	for name, accepts := range map[string]bool{"nobody listens": false, "nobody answers": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if accepts {
				t.Cleanup(func() { _ = ln.Close() })
			} else if err := ln.Close(); err != nil {
				t.Fatal(err)
			}
			base := run(t, over(t, "127.0.0.1:0", ln.Addr().String()))
			for _, path := range []string{"/", "/readyz"} {
				if resp, body := get(t, base+path); resp.StatusCode < 500 || !strings.Contains(body, "starting") {
					t.Errorf("%s: %d %s", path, resp.StatusCode, body)
				}
			}
			if resp, _ := get(t, base+"/healthz"); resp.StatusCode != http.StatusOK {
				t.Errorf("not healthy: %d", resp.StatusCode)
			}
		})
	}
}

func TestTooManyRequestsAreRefusedButHealthIsNot(t *testing.T) {
	c := &plainCluster{hold: make(chan struct{})}
	s := newServer(t, "127.0.0.1:0", c)
	s.requests = make(gate, 1)
	base := run(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/members", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	go func() {
		defer close(held)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-c.hold
	resp, body := get(t, base+"/v1/status")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || decode[api.Error](t, body).ErrorCode != "RESOURCE_EXHAUSTED" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if resp, body := get(t, base+path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	cancel()
	<-held
}

func TestMetricsAreThoseGiven(t *testing.T) {
	resp, body := get(t, serve(t, &plainCluster{})+"/metrics")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "wasmatrix_test 7") || strings.Contains(body, "go_goroutines") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestAnswerNamesItsRequest(t *testing.T) {
	base := serve(t, &plainCluster{})
	for given, kept := range map[string]bool{"abc-1": true, "": false, "two words": false, strings.Repeat("x", 200): false} {
		req, err := http.NewRequest(http.MethodGet, base+"/v1/status", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(tracing.CorrelationHeader, given)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get(tracing.CorrelationHeader); got == "" || (got == given) != kept || resp.StatusCode != http.StatusOK {
			t.Errorf("given %q: %d %q", given, resp.StatusCode, got)
		}
	}
}

func TestSlowHeadersAreCutOff(t *testing.T) {
	s := newServer(t, "127.0.0.1:0", &plainCluster{})
	s.http.ReadHeaderTimeout = 50 * time.Millisecond
	run(t, s)
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("not cut off: %v", err)
	}
}

func TestPortIsGivenBack(t *testing.T) {
	s := newServer(t, "127.0.0.1:0", &plainCluster{})
	if s.Addr() != nil || s.Close() != nil {
		t.Error("a server that never listened has an address, or can't be closed")
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("it runs without a port")
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	addr := s.Addr().String()
	if err := newServer(t, addr, &plainCluster{}).Listen(); err == nil || !strings.Contains(err.Error(), "http port") || !strings.Contains(err.Error(), addr) {
		t.Errorf("a taken port: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	again := newServer(t, addr, &plainCluster{})
	base := run(t, again)
	if resp, _ := get(t, base+"/healthz"); resp.StatusCode != http.StatusOK {
		t.Errorf("%d", resp.StatusCode)
	}
}
