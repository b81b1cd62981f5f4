package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

func TestPageShowsTheLeadersDataAndWhoLeads(t *testing.T) {
	resp, body := get(t, serve(t, someCluster())+"/")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	for _, want := range []string{"node <b><bdi>b</bdi></b>", "leader is <b><bdi>a</bdi></b>", ">web<", ">draining<"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
}

func TestPageShowsEndedInstancesAndHoldsStillIfAsked(t *testing.T) {
	base := serve(t, someCluster())
	_, live := get(t, base+"/")
	_, all := get(t, base+"/?all&still")
	if strings.Contains(live, ">job<") || !strings.Contains(all, ">job<") || !strings.Contains(all, "exit code 3") {
		t.Errorf("ended instances: %s\n%s", live, all)
	}
	const refresh = `http-equiv="refresh"`
	if !strings.Contains(live, refresh) || strings.Contains(all, refresh) {
		t.Errorf("refresh: %s\n%s", live, all)
	}
}

// Browsers hold a page to what these say.
func TestPageLoadsNothingFromElsewhereAndRunsNoScript(t *testing.T) {
	base := serve(t, someCluster())
	resp, body := get(t, base+"/")
	for header, want := range map[string]string{
		"Content-Security-Policy":      "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
	} {
		if got := resp.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	for _, foreign := range []string{"http://", "https://", "//", "<script", "style=", "javascript:", " onclick", " onload", "@import", "url("} {
		if strings.Contains(body+string(style), foreign) {
			t.Errorf("%q is on the page or in its style", foreign)
		}
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
