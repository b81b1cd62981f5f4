package httpclient

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

func TestEachHopIsCheckedAgainstTheGrant(t *testing.T) {
	inner := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "inner") })
	outer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner.URL+"/"+r.URL.Query().Get("to"), http.StatusFound)
	})
	c := client(t, Config{})
	ask := func(allow func(string, string) (bool, error)) (string, error) {
		_, body, err := send(c, &capability.HTTPRequest{Method: "GET", URL: outer.URL, Allow: allow})
		return body, err
	}
	if body, err := ask(loopback); err != nil || body != "inner" {
		t.Fatalf("any port: %q, %v", body, err)
	}
	if body, err := ask(granted("127.0.0.1:"+outer.port, "127.0.0.1:"+inner.port)); err != nil || body != "inner" {
		t.Fatalf("both ports: %q, %v", body, err)
	}
	before := inner.requests.Load()
	_, err := ask(granted("127.0.0.1:" + outer.port))
	want(t, err, capability.PermissionDenied, "http:domain:127.0.0.1 (port "+inner.port+")")
	if inner.requests.Load() != before {
		t.Error("the hop that no grant names was made")
	}
}

func TestRedirectsToWhereNoRequestMayGo(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	})
	c := client(t, Config{Resolver: serveNames(t, func(name string, _ int) []string {
		switch name {
		case "metadata.example.test":
			return []string{"169.254.169.254"}
		case "both.example.test":
			return []string{"127.0.0.1", "::1", "fd00::1"}
		}
		return nil
	})})
	allow := granted("127.0.0.1", "*.example.test")
	for to, words := range map[string]string{
		"http://169.254.169.254/latest/meta-data":  "http:domain:169.254.169.254",
		"http://[::ffff:169.254.169.254]/":         "http:domain:169.254.169.254",
		"http://metadata.example.test/latest":      "metadata.example.test is at 169.254.169.254, a link-local address",
		"http://both.example.test:" + s.port + "/": "address",
		"file:///etc/passwd":                       `scheme "file"`,
		"ftp://127.0.0.1/":                         `scheme "ftp"`,
		"data:text/plain,hello":                    `scheme "data"`,
		"gopher://127.0.0.1":                       `scheme "gopher"`,
		"http://127.0.0.1@evil.example.test/":      "holds a user",
		"http://127.1/":                            "neither a name nor an address",
		"javascript:alert(1)":                      `scheme "javascript"`,
	} {
		_, _, err := send(c, &capability.HTTPRequest{Method: "GET", URL: s.URL + "/?to=" + strings.ReplaceAll(to, " ", "%20"), Allow: allow})
		want(t, err, capability.PermissionDenied, words)
	}
	_, _, err := send(c, &capability.HTTPRequest{Method: "GET", URL: s.URL + "/?to=http://%25zz", Allow: allow})
	want(t, err, capability.Unavailable, "redirects to what is no URL")
}

func TestLoopsEnd(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) })
	_, _, err := get(client(t, Config{}), s.URL)
	want(t, err, capability.Exhausted, "11 redirects and no end")
	if n := s.requests.Load(); n != 11 {
		t.Errorf("%d requests, want the first and ten redirects", n)
	}
	if n := s.connections.Load(); n != 1 {
		t.Errorf("%d connections: hops should share one", n)
	}
}

func TestMethodAndBodyOfARedirect(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/end" {
			fmt.Fprintf(w, "%s %s %s", r.Method, body, r.Header.Get("Content-Type"))
			return
		}
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Location", "/end")
		w.WriteHeader(status)
	})
	c := client(t, Config{})
	for _, one := range []struct {
		method string
		status int
		want   string
	}{
		{"POST", 301, "GET  "}, {"POST", 302, "GET  "}, {"POST", 303, "GET  "}, {"POST", 307, "POST body text/plain"}, {"POST", 308, "POST body text/plain"},
		{"PUT", 301, "PUT body text/plain"}, {"PUT", 302, "PUT body text/plain"}, {"PUT", 303, "GET  "}, {"PUT", 307, "PUT body text/plain"},
		{"POST", 300, ""}, {"POST", 304, ""},
	} {
		r := &capability.HTTPRequest{
			Method: one.method, URL: fmt.Sprintf("%s/%d", s.URL, one.status), Allow: loopback,
			Body: bytes.NewReader([]byte("body")), Length: 4, Header: []capability.HTTPField{{Name: "Content-Type", Value: "text/plain"}},
		}
		if _, body, err := send(c, r); err != nil || body != one.want {
			t.Errorf("%s and %d: got %q, %v, want %q", one.method, one.status, body, err, one.want)
		}
		// A stream is gone once it was sent: where it would have to be sent again, the guest sees the redirect itself.
		r.Body = io.MultiReader(strings.NewReader("body"))
		status, body, err := send(c, r)
		if strings.Contains(one.want, "body") {
			if err != nil || status != one.status {
				t.Errorf("%s and %d of a stream: got %d, %v", one.method, one.status, status, err)
			}
		} else if err != nil || body != one.want {
			t.Errorf("%s and %d of a stream: got %q, %v, want %q", one.method, one.status, body, err, one.want)
		}
	}
	for _, method := range []string{"GET", "HEAD"} {
		if status, _, err := send(c, &capability.HTTPRequest{Method: method, URL: s.URL + "/303", Allow: loopback}); err != nil || status != 200 {
			t.Errorf("%s: %d, %v", method, status, err)
		}
	}
}

func TestSecretsStayWithTheirHost(t *testing.T) {
	show := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s", r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Header.Get("X-Plain"))
	}
	other := serve(t, show)
	var back string
	own := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/show", http.StatusFound)
		case "/other":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/away":
			http.Redirect(w, r, back, http.StatusFound)
		default:
			show(w, r)
		}
	})
	returns := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, own.URL+"/show", http.StatusFound) })
	back = returns.URL
	c := client(t, Config{})
	for path, want := range map[string]string{"/same": "me|sweet|x", "/other": "||x", "/away": "||x"} {
		_, body, err := send(c, &capability.HTTPRequest{Method: "GET", URL: own.URL + path, Allow: loopback, Header: []capability.HTTPField{
			{Name: "authorization", Value: "me"}, {Name: "cookie", Value: "sweet"}, {Name: "x-plain", Value: "x"},
		}})
		if err != nil || body != want {
			t.Errorf("%s: got %q, %v, want %q", path, body, err, want)
		}
	}
}

// directory has one provider.
type directory struct{ http capability.HTTP }

func (d directory) KV(capability.Call) (capability.KV, error)     { return nil, unavailable() }
func (d directory) HTTP(capability.Call) (capability.HTTP, error) { return d.http, nil }
func (d directory) Messaging(capability.Call) (capability.Messaging, error) {
	return nil, unavailable()
}

func unavailable() error { return capability.Errorf(capability.Unavailable, "not in this test") }

// observer counts.
type observer struct{ denied atomic.Int64 }

func (o *observer) Calling(ctx context.Context, _, _ string) context.Context { return ctx }

func (o *observer) Called(context.Context, string, string, string, capability.Status, time.Duration) {
}
func (o *observer) Denied(capability.Caller, string, string, *capability.Error) { o.denied.Add(1) }
func (o *observer) Dropped(capability.Caller)                                   {}

func TestGrantThatIsRevokedInMidRedirectEndsIt(t *testing.T) {
	grants := func(hosts ...string) []*capability.Grant {
		g := &capability.Grant{CapabilityId: "http", ProviderType: capability.TypeHTTP, Permissions: []string{capability.HTTPAsk}}
		for _, h := range hosts {
			g.Permissions = append(g.Permissions, "http:domain:"+h)
		}
		return []*capability.Grant{g}
	}
	var session *capability.Session
	var reached atomic.Int64
	inner := serve(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	outer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/revoke" {
			session.SetGrants(grants("127.0.0.1:1"))
		}
		http.Redirect(w, r, inner.URL, http.StatusFound)
	})
	c := client(t, Config{})
	var o observer
	session = capability.NewSession(capability.Caller{InstanceID: "i", Name: "n"}, grants("127.0.0.1"), directory{c}, &o)
	defer session.Close()
	_, err := session.Request(t.Context(), "http", &capability.HTTPRequest{Method: "GET", URL: outer.URL + "/revoke"})
	want(t, err, capability.PermissionDenied, "port "+inner.port)
	if reached.Load() != 0 || o.denied.Load() != 1 {
		t.Errorf("%d requests came through, and %d denials were told", reached.Load(), o.denied.Load())
	}

	// Many at once, while grants come and go: each ends well or is denied.
	stop := make(chan struct{})
	var guests sync.WaitGroup
	var well, denied atomic.Int64
	for range 4 {
		guests.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := session.Request(context.Background(), "http", &capability.HTTPRequest{Method: "GET", URL: outer.URL})
				if err == nil {
					_ = resp.Body.Close()
					well.Add(1)
				} else if s := capability.FromError(err).Status; s == capability.PermissionDenied || s == capability.UnknownGrant {
					denied.Add(1)
				} else {
					t.Errorf("got %v", err)
					return
				}
			}
		})
	}
	for n := 0; n < 50 || well.Load() == 0 || denied.Load() == 0; n++ {
		switch n % 3 {
		case 0:
			session.SetGrants(grants("127.0.0.1:" + outer.port))
		case 1:
			session.SetGrants(nil)
		case 2:
			session.SetGrants(grants("127.0.0.1"))
		}
		if _, _, err := get(c, inner.URL); err != nil { // takes as long as a hop
			t.Fatal(err)
		}
	}
	close(stop)
	guests.Wait()
	t.Logf("%d ended well, %d were denied", well.Load(), denied.Load())
}
