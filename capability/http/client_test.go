package httpclient

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

func TestMethodHeaderAndBodyPassBothWays(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Many", "one")
		w.Header().Add("X-Many", "two")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %q %q %d %s", r.Method, r.URL, r.Host, r.Header["X-Own"], r.UserAgent(), r.ContentLength, body)
	})
	c := client(t, Config{UserAgent: "test"})
	for _, one := range []struct {
		r    capability.HTTPRequest
		want string
	}{
		{capability.HTTPRequest{Method: "GET", URL: s.URL}, `GET / ` + s.host + ":" + s.port + ` [] "test" 0 `},
		{capability.HTTPRequest{Method: "PURGE", URL: s.URL + "/a b?q=1 2#part"}, `PURGE /a%20b?q=1%202 ` + s.host + ":" + s.port + ` [] "test" 0 `},
		{capability.HTTPRequest{
			Method: "POST", URL: s.URL + "/p", Body: strings.NewReader("known"), Length: 5,
			Header: []capability.HTTPField{{Name: "x-own", Value: "1"}, {Name: "X-OWN", Value: "2"}, {Name: "User-Agent", Value: "mine"}, {Name: "host", Value: s.host + ":" + s.port}, {Name: "Content-Length", Value: "5"}},
		}, `POST /p ` + s.host + ":" + s.port + ` ["1" "2"] "mine" 5 known`},
		{capability.HTTPRequest{Method: "PUT", URL: s.URL, Body: io.MultiReader(strings.NewReader("un"), strings.NewReader("known")), Length: -1}, `PUT / ` + s.host + ":" + s.port + ` [] "test" -1 unknown`},
		{capability.HTTPRequest{Method: "DELETE", URL: strings.ToUpper(s.URL[:4]) + s.URL[4:]}, `DELETE / ` + s.host + ":" + s.port + ` [] "test" 0 `},
	} {
		one.r.Allow = loopback
		resp, err := c.Do(t.Context(), &one.r)
		if err != nil {
			t.Fatalf("%s: %v", one.want, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if string(body) != one.want || resp.Status != http.StatusTeapot {
			t.Errorf("got %d %s\nwant %s", resp.Status, body, one.want)
		}
		var many []string
		for _, f := range resp.Header {
			if f.Name == "X-Many" {
				many = append(many, f.Value)
			}
		}
		if strings.Join(many, " ") != "one two" {
			t.Errorf("header X-Many came as %q", many)
		}
	}
	if resp, err := c.Do(t.Context(), &capability.HTTPRequest{Method: "HEAD", URL: s.URL, Allow: loopback}); err != nil || resp.Status != http.StatusTeapot {
		t.Errorf("HEAD: %v", err)
	}
}

func TestRequestThatMakesNoSenseIsNotSent(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := client(t, Config{})
	header := func(name, value string) capability.HTTPRequest {
		return capability.HTTPRequest{Method: "GET", URL: s.URL, Header: []capability.HTTPField{{Name: name, Value: value}}}
	}
	for words, r := range map[string]capability.HTTPRequest{
		`method "" is none`:                      {URL: s.URL},
		`method "GE T" is none`:                  {Method: "GE T", URL: s.URL},
		`method "GET / HTTP/1.1\r\nX: y`:         {Method: "GET / HTTP/1.1\r\nX: y", URL: s.URL},
		"method CONNECT is not for guests":       {Method: "CONNECT", URL: s.URL},
		"method trace is not for guests":         {Method: "trace", URL: s.URL},
		`scheme "file"`:                          {Method: "GET", URL: "file:///etc/passwd"},
		`scheme "ftp"`:                           {Method: "GET", URL: "ftp://" + s.host},
		`scheme ""`:                              {Method: "GET", URL: "//" + s.host + ":" + s.port},
		"the URL names no host":                  {Method: "GET", URL: "http:///path"},
		"the URL names no host.":                 {Method: "GET", URL: "http:" + s.host},
		"the URL holds a user":                   {Method: "GET", URL: "http://" + s.host + ":" + s.port + "@example.com/"},
		"the URL of 39 bytes is none":            {Method: "GET", URL: "http://127.0.0.1/\r\nX-Injected: y\r\n\r\n\r\n\r"},
		`host "2130706433" is neither`:           {Method: "GET", URL: "http://2130706433:" + s.port},
		`host "127.1" is neither`:                {Method: "GET", URL: "http://127.1:" + s.port},
		`host "0x7f.0x1" is neither`:             {Method: "GET", URL: "http://0x7f.0x1:" + s.port},
		"is no name":                             {Method: "GET", URL: "http://１２７.０.０.１:" + s.port},
		`host "a..b" is no name`:                 {Method: "GET", URL: "http://a..b"},
		"zone":                                   {Method: "GET", URL: "http://[fe80::1%25lo]:" + s.port},
		`port "0"`:                               {Method: "GET", URL: "http://127.0.0.1:0"},
		`port "65536"`:                           {Method: "GET", URL: "http://127.0.0.1:65536"},
		"header X-A holds a line":                header("X-A", "b\r\nX-Injected: y"),
		"header X-B holds a line":                header("X-B", "b\nX-Injected: y"),
		"header X-C holds a line":                header("X-C", "b\x00"),
		`header name "X-D: y\r\nX-E" is none`:    header("X-D: y\r\nX-E", "z"),
		`header name "" is none`:                 header("", "z"),
		"Transfer-Encoding is about the conn":    header("transfer-encoding", "chunked"),
		"Connection is about the connection":     header("CONNECTION", "X-Forwarded-For"),
		"Upgrade is about the connection":        header("Upgrade", "websocket"),
		"Proxy-Authorization is about the conn":  header("Proxy-Authorization", "x"),
		"Te is about the connection":             header("TE", "trailers"),
		"Keep-Alive is about the connection":     header("Keep-Alive", "1"),
		`header Host is "internal.example"`:      header("Host", "internal.example"),
		`header Content-Length is "5"`:           header("Content-Length", "5"),
		"and none is there":                      {Method: "POST", URL: s.URL, Length: 1},
		"a body of -2 bytes":                     {Method: "POST", URL: s.URL, Length: -2},
		"a time limit of -1s":                    {Method: "GET", URL: s.URL, Limit: -time.Second},
		"a time limit of 2m0s: want one up to 1": {Method: "GET", URL: s.URL, Limit: 2 * time.Minute},
	} {
		r.Allow = func(string, string) (bool, error) { return true, nil }
		if _, _, err := send(c, &r); err == nil {
			t.Errorf("accepted: %s", words)
		} else {
			want(t, err, capability.InvalidRequest, strings.TrimSuffix(words, "."))
		}
	}
	_, _, err := send(c, &capability.HTTPRequest{Method: "GET", URL: s.URL})
	want(t, err, capability.PermissionDenied, "")
	large := header("X-Large", strings.Repeat("x", 2<<20))
	_, _, err = send(c, &large)
	want(t, err, capability.Exhausted, "the header of the request")
	if n := s.connections.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

// What is accepted is sent as one request with this header and no other, whatever is in it.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "http://example.com/a?b#c", "X-Own", "value")
	f.Add("POST\r\n", "http://user@example.com/", "X:", "a\r\nb: c")
	f.Add("get", "https://[::ffff:127.0.0.1]:443/%0d%0a?\r", "Host", "example.com")
	f.Add("GET", "http://ＥＸＡＭＰＬＥ.com./ ? ", "connection", "")
	c, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, u, name, value string) {
		h, err := c.firstHop(&capability.HTTPRequest{Method: method, URL: u, Header: []capability.HTTPField{{Name: name, Value: value}}})
		if err != nil {
			if e := capability.FromError(err); e.Status == capability.Internal {
				t.Fatal(err)
			}
			return
		}
		again, err := canonicalHost(h.host)
		if err != nil || again != h.host {
			t.Fatalf("host %q is %q the second time, %v", h.host, again, err)
		}
		var wire bytes.Buffer
		if err := h.request(t.Context()).Write(&wire); err != nil {
			return // net/http is stricter, which is fine
		}
		lines := strings.Count(wire.String(), "\n")
		if expected := 4 + len(h.header) - 1; lines > expected+1 { // request line, Host, User-Agent, the blank one, and its own
			t.Fatalf("%d lines, want at most %d:\n%q", lines, expected+1, wire.String())
		}
		if got := h.url.Hostname(); got != h.host {
			t.Fatalf("the grant is asked for %q, and the request goes to %q", h.host, got)
		}
	})
}

func TestBodiesAreLimited(t *testing.T) {
	const most = 64 << 10
	var received sync.Map
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		received.Store(r.URL.Path, err == nil)
		size, _ := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		if r.URL.Query().Has("known") {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		}
		if r.URL.Query().Has("echo") {
			size = n
		}
		_, _ = io.CopyN(w, endless{}, size)
	})
	c := client(t, Config{MaxBody: most})
	for _, path := range []string{"?known&size=", "?size="} {
		status, body, err := get(c, s.URL+path+fmt.Sprint(most))
		if err != nil || status != 200 || len(body) != most {
			t.Errorf("%s, the most: %d, %d bytes, %v", path, status, len(body), err)
		}
		status, body, err = get(c, s.URL+path+fmt.Sprint(most+1))
		want(t, err, capability.Exhausted, "more than 65536 bytes")
		if status != 200 || len(body) != most {
			t.Errorf("%s, one more: %d, %d bytes", path, status, len(body))
		}
	}

	post := func(path string, body io.Reader, length int64) (int, string, error) {
		return send(c, &capability.HTTPRequest{Method: "POST", URL: s.URL + path, Body: body, Length: length, Allow: loopback})
	}
	if _, body, err := post("/known?echo", io.LimitReader(endless{}, most), most); err != nil || len(body) != most {
		t.Errorf("the most of a known length: %d bytes, %v", len(body), err)
	}
	if _, body, err := post("/unknown?echo", io.LimitReader(endless{}, most), -1); err != nil || len(body) != most {
		t.Errorf("the most of an unknown length: %d bytes, %v", len(body), err)
	}
	before := s.requests.Load()
	_, _, err := post("/known-more", endless{}, most+1)
	want(t, err, capability.Exhausted, "at most 65536")
	if s.requests.Load() != before {
		t.Error("a body that is too long by what it says was sent")
	}
	_, _, err = post("/endless", endless{}, -1)
	want(t, err, capability.Exhausted, "more than 65536")
	_, _, err = post("/short", strings.NewReader("abc"), 5)
	want(t, err, capability.InvalidRequest, "5 bytes was announced, and 3 are there")
	_, _, err = post("/short", io.MultiReader(strings.NewReader("abc")), 5)
	want(t, err, capability.InvalidRequest, "5 bytes was announced, and 3 were there")
	_, _, err = post("/long", strings.NewReader(strings.Repeat("x", most+1)), -1)
	want(t, err, capability.Exhausted, "at most 65536")
	_, _, err = post("/broken", io.MultiReader(strings.NewReader("abc"), failing{}), -1)
	want(t, err, capability.Unavailable, "the sender has gone")
	for _, path := range []string{"/endless", "/short", "/broken"} {
		if whole, ok := received.Load(path); ok && whole == true {
			t.Errorf("%s: the server believes that it has the whole body", path)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) {
	return 0, capability.Errorf(capability.Unavailable, "the sender has gone")
}

func TestServersThatDoNotEndCostNoMoreThanTheLimit(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		flusher := http.NewResponseController(w)
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/slow": // a byte now and then
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("."))
				_ = flusher.Flush()
				<-tick.C
			}
		case "/endless":
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 32<<10))
			}
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
			_ = flusher.Flush()
			panic(http.ErrAbortHandler)
		case "/header":
			w.Header().Set("X-Large", strings.Repeat("x", 64<<10))
		}
	})
	c := client(t, Config{MaxHeader: 32 << 10, Timeout: 10 * time.Second})
	ask := func(path string, limit time.Duration) (string, error) {
		_, body, err := send(c, &capability.HTTPRequest{Method: "GET", URL: s.URL + path, Limit: limit, Allow: loopback})
		return body, err
	}
	_, err := ask("/silent", 50*time.Millisecond)
	want(t, err, capability.Timeout, "within 50ms")
	body, err := ask("/slow", 100*time.Millisecond)
	want(t, err, capability.Timeout, "within 100ms")
	if !strings.HasPrefix(body, ".") {
		t.Errorf("what came before the limit is lost: %q", body)
	}
	_, err = ask("/endless", 0)
	want(t, err, capability.Exhausted, "more than 10485760 bytes")
	_, err = ask("/cut", 0)
	want(t, err, capability.Unavailable, "in the middle")
	_, err = ask("/header", 0)
	want(t, err, capability.Exhausted, "header of the response")

	// The instance ends while its request waits, and while it reads.
	for _, path := range []string{"/silent", "/slow"} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		resp, err := c.Do(ctx, &capability.HTTPRequest{Method: "GET", URL: s.URL + path, Allow: loopback})
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		want(t, err, capability.Interrupted, "")
	}

	// A body that nobody reads to its end is closed at once, also beside a Read that waits.
	resp, err := c.Do(t.Context(), &capability.HTTPRequest{Method: "GET", URL: s.URL + "/slow", Allow: loopback})
	if err != nil {
		t.Fatal(err)
	}
	reading := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, resp.Body)
		reading <- err
	}()
	_ = resp.Body.Close()
	if err := <-reading; err == nil {
		t.Error("a body that was closed has ended well")
	}
}

func TestConnectionsAreReused(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	c := client(t, Config{})
	for range 50 {
		if _, body, err := get(c, s.URL); err != nil || body != "hello" {
			t.Fatal(body, err)
		}
	}
	if n := s.connections.Load(); n != 1 {
		t.Errorf("%d connections for 50 requests", n)
	}

	// One that the server has closed meanwhile is no error to who may ask again.
	for range 5 {
		s.CloseClientConnections()
		if _, _, err := get(c, s.URL); err != nil {
			t.Errorf("after the server closed its connections: %v", err)
		}
	}
}

func TestCertificates(t *testing.T) {
	s := serveBy(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Proto)
	}, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
	})
	_, _, err := get(client(t, Config{}), s.URL)
	want(t, err, capability.Unavailable, "the certificate of 127.0.0.1 is not trusted: x509: certificate signed by unknown authority")

	c := client(t, Config{RootCAs: trust(s)})
	for range 3 {
		if _, body, err := get(c, s.URL); err != nil || body != "HTTP/2.0" {
			t.Fatal(body, err)
		}
	}
	if n := s.connections.Load(); n != 2 {
		t.Errorf("%d connections, want one that was refused and one that was used", n)
	}
	_, _, err = send(c, &capability.HTTPRequest{Method: "POST", URL: s.URL, Body: endless{}, Length: -1, Allow: loopback})
	want(t, err, capability.Exhausted, "the body of the request")

	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	_, _, err = get(c, strings.Replace(plain.URL, "http:", "https:", 1))
	want(t, err, capability.Unavailable, "127.0.0.1 does not speak TLS on port "+plain.port)
}

func TestNothingIsDecompressed(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accepts", r.Header.Get("Accept-Encoding"))
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	})
	if _, body, err := get(client(t, Config{}), s.URL); err != nil || body != packed.String() {
		t.Errorf("%d bytes came of %d, %v", len(body), packed.Len(), err)
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := client(t, Config{Resolver: serveNames(t, func(string, int) []string { return nil })})
	_, _, err = get(c, "http://"+addr+"/?token=secret")
	want(t, err, capability.Unavailable, "connection refused")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the query is in %q", err)
	}
	_, _, err = send(c, &capability.HTTPRequest{Method: "GET", URL: "http://nobody.example.test/", Allow: granted()})
	want(t, err, capability.Unavailable, "there is no host nobody.example.test")
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	for _, cfg := range []Config{{MaxBody: -1}, {MaxRedirects: -1}, {MaxHeader: -1}, {Timeout: -1}, {Timeout: 2, MaxTimeout: 1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	c := client(t, Config{})
	if c.public.Proxy != nil || c.named.Proxy != nil {
		t.Error("a proxy would connect to addresses that nobody checked")
	}
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
