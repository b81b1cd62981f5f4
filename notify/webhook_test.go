package notify

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever goes wrong on the way: each event is taken, once, in order.
func TestWebhookIsToldAgainUntilItTakesAnEvent(t *testing.T) {
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
	h := newHook(t,
		status(500), hangUp, hang, status(503), status(200), // the first event
		status(429, "Retry-After", "86400"), status(503, "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)),
		status(503, "Retry-After", "-1"), status(503, "Retry-After", "0"), status(408), status(502), status(204), // the second
	)
	short := quick
	short.attempt = 500 * time.Millisecond
	v := newVoter(t, Config{Webhooks: Webhooks{URLs: []string{h.URL + "/in?key=k"}}, pace: short}, "a")
	v.rules(true)
	v.log.Add(events("n1", 1, 5))
	eventually(t, "all is told", func() bool { return slices.Contains(h.ids(), "n1/boot/5") })
	// An attempt may have been too slow for a busy machine.
	if want := []string{"n1/boot/1", "n1/boot/2", "n1/boot/3", "n1/boot/4", "n1/boot/5"}; !slices.Equal(unique(h.ids()), want) || h.requests() < 5+7+3 {
		t.Errorf("%v in %d requests", h.ids(), h.requests())
	}
	if got := h.headers.Get("Content-Type"); got != "application/cloudevents+json" {
		t.Errorf("it is posted as %s", got)
	}
	if failures, dropped := v.counted(t, "wasmatrix_event_delivery_failures_total", shown(h.URL)), v.counted(t, "wasmatrix_events_dropped_total", shown(h.URL)); failures < 10 || dropped != 0 {
		t.Errorf("%v failures, %v dropped", failures, dropped)
	}
}

func TestWhatAWebhookRefusesIsNotSentAgain(t *testing.T) {
	elsewhere := newHook(t)
	h := newHook(t, status(400), status(404), status(410), status(302, "Location", elsewhere.URL), status(307, "Location", elsewhere.URL), status(201))
	v := newVoter(t, Config{Webhooks: Webhooks{URLs: []string{h.URL}}}, "a")
	v.rules(true)
	v.log.Add(events("n1", 1, 6))
	eventually(t, "the last is told", func() bool { return slices.Equal(h.ids(), []string{"n1/boot/6"}) })
	if h.requests() != 6 || elsewhere.requests() != 0 {
		t.Errorf("%d requests, and %d to where redirects lead", h.requests(), elsewhere.requests())
	}
	if got := v.counted(t, "wasmatrix_events_dropped_total", shown(h.URL)); got != 5 {
		t.Errorf("%v dropped", got)
	}
}

// An event that a receiver can't take does not keep the others for ever.
func TestEventThatFailsForTooLongIsGivenUp(t *testing.T) {
	h := newHook(t)
	h.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || bytes.Contains(body, []byte("n1/boot/1")) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})
	short := quick
	short.giveUp = 50 * time.Millisecond
	v := newVoter(t, Config{Webhooks: Webhooks{URLs: []string{h.URL}}, pace: short}, "a")
	v.rules(true)
	v.log.Add(events("n1", 1, 2))
	eventually(t, "the second is told", func() bool { return slices.Equal(h.ids(), []string{"n1/boot/2"}) })
	if got := v.counted(t, "wasmatrix_events_dropped_total", shown(h.URL)); got != 1 {
		t.Errorf("%v dropped", got)
	}
}

func TestSignatureIsOfTheBodyWithTheKeyAsItIsNow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	write := func(key string) {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	h := newHook(t)
	v := newVoter(t, Config{Webhooks: Webhooks{URLs: []string{h.URL}, SecretFile: file}}, "a")
	v.rules(true)
	for n, key := range []string{"first", "second"} {
		write(key + "\n")
		v.log.Add(events("n1", n+1, n+1))
		eventually(t, "it is told", func() bool { return len(h.ids()) == n+1 })
		if got := h.headers.Get("X-Hub-Signature-256"); got != sign([]byte(key), h.body) {
			t.Errorf("signed as %s", got)
		}
	}
	// The example of GitHub's documentation.
	if got := sign([]byte("It's a Secret to Everybody"), []byte("Hello, World!")); got != "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" {
		t.Errorf("signed as %s", got)
	}
}

func TestNoSecretOfAWebhookIsLogged(t *testing.T) {
	h := newHook(t, status(500), status(404), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	var log lockedBuffer
	address := strings.Replace(h.URL, "//", "//me:hush1@", 1) + "/services/hush2?token=hush3"
	v := newVoter(t, Config{
		Webhooks: Webhooks{URLs: []string{address, "http://me:hush1@127.0.0.1:1/hush2"}},
		Log:      slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, "a")
	v.rules(true)
	v.log.Add(events("n1", 1, 3))
	eventually(t, "all is told", func() bool { return len(h.ids()) == 2 })
	if user, password, ok := (&http.Request{Header: h.headers}).BasicAuth(); !ok || user != "me" || password != "hush1" {
		t.Errorf("the user is %q, %q", user, password)
	}
	eventually(t, "both are in trouble", func() bool {
		return strings.Contains(log.String(), "500 Internal Server Error") && strings.Contains(log.String(), "http://127.0.0.1:1")
	})
	families, err := v.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{log.String(), families[0].String(), families[1].String()} {
		if strings.Contains(text, "hush") {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}

func TestWebhookWithTLSIsOneThatTheHostTrusts(t *testing.T) {
	h := newHook(t)
	secure := httptest.NewTLSServer(h)
	defer secure.Close()
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	cfg := Config{pace: quick}
	refuses := newWebhook(cfg, secure.URL)
	if err := refuses.deliver(t.Context(), delivery{"x", []byte("{}")}); err == nil || !strings.Contains(err.Error(), "certificate") || h.requests() > 0 {
		t.Errorf("a stranger is told: %v", err)
	}
	cfg.roots = x509.NewCertPool()
	cfg.roots.AddCert(secure.Certificate())
	trusts := newWebhook(cfg, secure.URL)
	defer trusts.client.CloseIdleConnections()
	if err := trusts.deliver(t.Context(), delivery{"x", []byte("{}")}); err != nil || h.requests() != 1 {
		t.Errorf("whom we trust is not told: %v", err)
	}
}

func TestAnswerWithoutEndIsNotReadToTheEnd(t *testing.T) {
	h := newHook(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	w := newWebhook(Config{pace: quick}, h.URL)
	defer w.client.CloseIdleConnections()
	if err := w.deliver(context.Background(), delivery{"x", []byte("{}")}); err != nil {
		t.Error(err)
	}
}

func TestWebhooksAreCheckedInTermsOfFlags(t *testing.T) {
	for name, c := range map[string]struct {
		urls   []string
		secret string
		want   string // part of the error; empty for none
	}{
		"none":               {nil, "", ""},
		"two":                {[]string{"http://a/x", "https://u:p@b:8443/x?y=z"}, "", ""},
		"a secret for none":  {nil, "f", "there is no --event-webhook"},
		"no scheme":          {[]string{"http://a", "hush/x"}, "", "number 2 is not http://"},
		"another scheme":     {[]string{"ftp://hush/x"}, "", "number 1 is not http://"},
		"no host":            {[]string{"http:///hush"}, "", "number 1 is not http://"},
		"no URL":             {[]string{"http://u:hush@[x/"}, "", "number 1 is not http://"},
		"the same":           {[]string{"http://a/hush", "http://b", "http://a/hush"}, "", "numbers 1 and 3 are the same"},
		"a fragment":         {[]string{"http://a/#hush"}, "", "number 1 is not http://"},
		"a secret not there": {[]string{"http://a"}, filepath.Join(t.TempDir(), "x"), "--event-webhook-secret-file: open "},
	} {
		_, err := New(Config{Webhooks: Webhooks{URLs: c.urls, SecretFile: c.secret}, Log: slog.New(slog.DiscardHandler)}, &seat{}, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
