package httpclient

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/wasmatrix/wasmatrix/capability"
)

// site is a server, and what was seen of its clients.
type site struct {
	*httptest.Server
	connections, requests atomic.Int64
	host, port            string
}

func serve(tb testing.TB, h http.HandlerFunc) *site {
	tb.Helper()
	return serveBy(tb, h, (*httptest.Server).Start)
}

func serveBy(tb testing.TB, h http.HandlerFunc, start func(*httptest.Server)) *site {
	tb.Helper()
	s := &site{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		h(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	start(s.Server)
	tb.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	u, err := url.Parse(s.URL)
	if err != nil {
		tb.Fatal(err)
	}
	s.host, s.port = u.Hostname(), u.Port()
	return s
}

func client(tb testing.TB, cfg Config) *Client {
	tb.Helper()
	c, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func trust(s *site) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}

// granted is what a grant allows that asks, narrowed to these hosts.
func granted(hosts ...string) func(host, port string) (bool, error) {
	permissions := []string{capability.HTTPAsk}
	for _, h := range hosts {
		permissions = append(permissions, "http:domain:"+h)
	}
	rights := capability.Compile([]*capability.Grant{{CapabilityId: "http", ProviderType: capability.TypeHTTP, Permissions: permissions}})
	right, err := rights.Of("http", capability.TypeHTTP)
	if err != nil {
		panic(err)
	}
	return right.Host
}

// loopback is the grant that the tests' own servers need.
var loopback = granted("127.0.0.1")

func get(c *Client, url string) (int, string, error) {
	return send(c, &capability.HTTPRequest{Method: "GET", URL: url, Allow: loopback})
}

func send(c *Client, r *capability.HTTPRequest) (int, string, error) {
	resp, err := c.Do(context.Background(), r)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.Status, string(body), errors.Join(err, resp.Body.Close())
}

func want(tb testing.TB, err error, status capability.Status, words string) {
	tb.Helper()
	if e := capability.FromError(err); e == nil || e.Status != status || !strings.Contains(e.Message, words) {
		tb.Fatalf("got %v, want %v with %q", err, status, words)
	}
}

// nameServer is a DNS server on UDP. It answers each question with what answer says, no address meaning no such name.
type nameServer struct {
	conn net.PacketConn

	mu sync.Mutex // guards asked

	asked map[string]int // questions for IPv4 addresses
}

func serveNames(tb testing.TB, answer func(name string, nth int) []string) *net.Resolver {
	tb.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	s := &nameServer{conn: conn, asked: map[string]int{}}
	go s.serve(answer)
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve(answer func(name string, nth int) []string) {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		name := strings.TrimSuffix(q.Name.String(), ".")
		s.mu.Lock()
		nth := s.asked[name]
		if q.Type == dnsmessage.TypeA {
			s.asked[name]++
		}
		s.mu.Unlock()
		out := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: true, RecursionAvailable: true},
			Questions: m.Questions,
		}
		addrs := answer(name, nth)
		if addrs == nil {
			out.RCode = dnsmessage.RCodeNameError
		}
		for _, a := range addrs {
			ip := netip.MustParseAddr(a)
			h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
			switch {
			case ip.Is4() && q.Type == dnsmessage.TypeA:
				out.Answers = append(out.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}})
			case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
				out.Answers = append(out.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
			}
		}
		packed, err := out.Pack()
		if err == nil {
			_, _ = s.conn.WriteTo(packed, from)
		}
	}
}
