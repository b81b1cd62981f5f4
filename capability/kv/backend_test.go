package kv

import (
	"strings"
	"testing"
)

func TestBackends(t *testing.T) {
	for _, test := range []struct{ url, shown, wrong string }{
		{url: "memory:", shown: "memory:"},
		{url: "memory://", shown: "memory:"},
		{url: "redis://h:1", shown: "redis://h:1"},
		{url: "redis://:secret@h:1/2", shown: "redis://h:1/2"},
		{url: "rediss://user:secret@h:1", shown: "rediss://h:1"},
		{url: "nats://secret@h:1,[::1]:2?replicas=3", shown: "nats://h:1,[::1]:2"},
		{url: "etcd://root:secret@a:1,b:2", shown: "etcd://a:1,b:2"},
		{url: "ETCD://root:sec%40ret@a:1/", shown: "etcd://a:1"},
		{url: "", wrong: "begins with"},
		{url: "raft:", wrong: "begins with"},
		{url: "http://h:1", wrong: "begins with"},
		{url: "memory:x", wrong: "begins with"},
		{url: "redis:h:1", wrong: "redis://HOST:PORT"},
		{url: "redis://h", wrong: `"h" is no HOST:PORT`},
		{url: "redis://h:x", wrong: "no HOST:PORT"},
		{url: "redis://h:0", wrong: "no HOST:PORT"},
		{url: "redis://:1", wrong: "no HOST:PORT"},
		{url: "redis://a:1,b:1", wrong: "one HOST:PORT"},
		{url: "redis://h:1/x", wrong: "number of a database"},
		{url: "redis://u:secret%zz@h:1", wrong: "%25"},
		{url: "redis://u:se/secret@h:1", wrong: "HOST:PORT"},
		{url: "redis://h:1?x=secret", wrong: `option "x"`},
		{url: "nats://h:1?replicas=9", wrong: "1 to 5"},
		{url: "nats://h:1/x", wrong: "nothing follows"},
		{url: "etcd://h:1,,", wrong: "HOST:PORT"},
	} {
		b, err := parseBackend(test.url)
		switch {
		case test.wrong == "" && (err != nil || b.shown() != test.shown || Redact(test.url) != test.shown):
			t.Errorf("%q is %q, redacted %q, %v; want %q", test.url, b.shown(), Redact(test.url), err, test.shown)
		case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)):
			t.Errorf("%q is refused with %v, want %q", test.url, err, test.wrong)
		}
		if err != nil && strings.Contains(err.Error(), "secret") || strings.Contains(Redact(test.url), "secret") {
			t.Errorf("%q shows its secret: %v, %s", test.url, err, Redact(test.url))
		}
	}
}

func FuzzBackend(f *testing.F) {
	f.Add("redis://u:p@h:1/2")
	f.Add("nats://a:1,b:2?replicas=3")
	f.Fuzz(func(t *testing.T, url string) {
		b, err := parseBackend(url)
		if err == nil {
			if again, err := parseBackend(b.shown()); err != nil || again.shown() != b.shown() {
				t.Errorf("%q is shown as %q, which is %q, %v", url, b.shown(), again.shown(), err)
			}
		}
		_ = Redact(url)
	})
}
