package capability

import (
	"net"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidPermissions(t *testing.T) {
	for typ, permissions := range map[string][]string{
		TypeKV:        {"kv:read", "kv:write", "kv:delete", "kv:bucket:a", "kv:bucket:*", "kv:bucket:my-bucket_1.x"},
		TypeHTTP:      {"http:request", "http:domain:example.com", "http:domain:*.example.com", "http:domain:example.com:8443", "http:domain:localhost", "http:domain:10.0.0.1:80", "http:domain:[::1]:80", "http:domain:::1", "http:domain:xn--bcher-kva.de", "http:domain:_a.b"},
		TypeMessaging: {"msg:publish", "msg:subscribe", "msg:publish:a", "msg:publish:a.*.b", "msg:subscribe:>", "msg:subscribe:a.>", "msg:publish:$KV.>", "msg:subscribe:wasmatrix.events.>", "msg:publish:wasmatrixes"},
	} {
		for _, p := range permissions {
			for _, other := range Types() {
				if err := ValidatePermission(other, p); (err == nil) != (other == typ) {
					t.Errorf("%s of %s: %v", p, other, err)
				}
			}
		}
	}
	for typ, permissions := range map[string][]string{
		TypeKV:        {"", "kv", "kv:", "kv:read ", "KV:READ", "kv:bucket:", "kv:bucket:a/b", "kv:bucket:.a", "kv:bucket:a b", "kv:bucket:" + strings.Repeat("a", 65)},
		TypeHTTP:      {"http:domain:", "http:domain:*", "http:domain:*.", "http:domain:a..b", "http:domain:a b", "http:domain:a/b", "http:domain:http://a", "http:domain:a:0", "http:domain:a:65536", "http:domain:a:http", "http:domain:[::1", "http:domain:[::1]x", "http:domain:*.10.0.0.1", "http:domain:a.*.b", "http:domain:bücher.de", "http:domain:user@a", "http:domain:a\nb"},
		TypeMessaging: {"msg:publish:", "msg:publish:a..b", "msg:publish:.a", "msg:subscribe:>.a", "msg:subscribe:a b", "msg:subscribe:a\r\nb", "msg:subscribe:\xff", "msg:publish:" + strings.Repeat("a", 256), "msg:publish:wasmatrix", "msg:publish:wasmatrix.>", "msg:publish:wasmatrix.events.x"},
		"mail":        {"kv:read"},
	} {
		for _, p := range permissions {
			if err := ValidatePermission(typ, p); err == nil {
				t.Errorf("%s of %s is accepted", p, typ)
			}
		}
	}
}

// tokens make subjects that tell any two patterns over the first three apart.
var tokens = []string{"a", "b", "$c", "other"}

// subjects are all subjects of up to four tokens.
var subjects = func() []string {
	all := slices.Clone(tokens)
	for from, depth := 0, 1; depth < 4; depth++ {
		to := len(all)
		for _, s := range all[from:to] {
			for _, token := range tokens {
				all = append(all, s+"."+token)
			}
		}
		from = to
	}
	return all
}()

// stands says whether a subject is one that a pattern stands for: the rule of NATS, token by token.
func stands(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case i >= len(s):
			return false
		case token == ">":
			return true
		case token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}

func drawPattern(t *rapid.T, label string) string {
	p := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "$c", "*"}), 0, 3).Draw(t, label)
	if len(p) == 0 || rapid.Bool().Draw(t, label+" and the rest") {
		p = append(p, ">")
	}
	return strings.Join(p, ".")
}

func TestPatternCoversWhatItsSubjectsSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		outer, inner := drawPattern(t, "outer"), drawPattern(t, "inner")
		all := true
		for _, s := range subjects {
			all = all && (!stands(inner, s) || stands(outer, s))
			if covers(outer, s) != stands(outer, s) {
				t.Fatalf("%s covers %s: %v", outer, s, covers(outer, s))
			}
		}
		if got := covers(outer, inner); got != all {
			t.Fatalf("%s covers %s: %v, and subject by subject %v", outer, inner, got, all)
		}
	})
}

// What NATS keeps for itself is not meant by "all topics".
func TestWildcardsDoNotMeanReservedSubjects(t *testing.T) {
	right := func(permissions ...string) *Right {
		r, err := Compile(messagingGrant(permissions...)).Of("msg", TypeMessaging)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, subject := range []string{"$JS.API.STREAM.DELETE.x", "$KV.bucket.key", "_INBOX.abc.1", "$SYS.>", "$KV.*", "wasmatrix.events.instance.started"} {
		for _, wide := range []string{Publish, "msg:publish:>", "msg:publish:*.>", Subscribe, "msg:subscribe:>"} {
			r := right(wide)
			if r.PublishTo(subject) == nil || r.HearFrom(subject) == nil {
				t.Errorf("%s allows %s", wide, subject)
			}
		}
	}
	if err := right("msg:publish:$KV.>").PublishTo("$KV.bucket.key"); err != nil {
		t.Errorf("what is named is refused: %v", err)
	}
	if err := right(Publish).PublishTo("_INBOXES.a$b"); err != nil {
		t.Error(err)
	}
}

// An event that a guest receives was sent by a node: no grant lets a guest send one, also none that was made before this was so.
func TestNoGrantLetsAGuestSpeakForTheCluster(t *testing.T) {
	const subject = "wasmatrix.events.instance.started"
	for _, p := range []string{Publish, "msg:publish:>", "msg:publish:*.events.>", "msg:publish:wasmatrix.>", "msg:publish:" + subject} {
		r, err := Compile(messagingGrant(p, "msg:subscribe:wasmatrix.events.>")).Of("msg", TypeMessaging)
		if err != nil {
			t.Fatal(err)
		}
		if r.PublishTo(subject) == nil {
			t.Errorf("%s allows to publish an event", p)
		}
		if err := r.HearFrom(subject); err != nil {
			t.Errorf("events that are named may not be heard: %v", err)
		}
	}
}

func FuzzValidatePermission(f *testing.F) {
	for _, p := range []string{"kv:bucket:a", "http:domain:*.a:80", "http:domain:[::1]:1", "msg:publish:a.>", "msg:subscribe:*", "http:request", "x"} {
		for _, typ := range Types() {
			f.Add(typ, p)
		}
	}
	f.Fuzz(func(t *testing.T, typ, p string) {
		if ValidatePermission(typ, p) != nil {
			return
		}
		// What is valid is one of a grant's permissions, and stays valid and the same on its way.
		g := []*Grant{{CapabilityId: "id", ProviderType: typ, Permissions: []string{p}}}
		n, err := Normalize(g)
		if err != nil || !same(n, g) {
			t.Fatalf("%q: %v, %v", p, n, err)
		}
		if strings.ContainsAny(p, "\r\n\x00") {
			t.Fatalf("%q is valid", p)
		}
		if left := Revoke(n, g); len(left) > 0 {
			t.Fatalf("%q can't be revoked: %v", p, left)
		}
		// It allows no more than its kind.
		right, err := Compile(n).Of("id", typ)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := right.Host("example.com", "80"); err == nil && p != HTTPAsk {
			t.Fatalf("%q alone allows requests", p)
		}
		if right.Bucket(ReadKey, "own", "own") == nil != (p == KVRead) {
			t.Fatalf("%q and reading", p)
		}
	})
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"example.com", "*.Example.com:8443", "[::1]:80", "[::ffff:1.2.3.4]", "10.0.0.1", "::1", "*.1", "a:b:c", "[]", ":80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseHost(s)
		if err != nil {
			return
		}
		if p.host == "" || p.host != strings.ToLower(p.host) || strings.ContainsAny(p.host, "*[]/@ \r\n") {
			t.Fatalf("%q is host %q", s, p.host)
		}
		again := p.host
		if net.ParseIP(p.host) != nil && strings.Contains(p.host, ":") {
			again = "[" + p.host + "]"
		}
		if p.wildcard {
			again = "*." + again
		}
		if p.port != "" {
			again += ":" + p.port
		}
		if q, err := parseHost(again); err != nil || q != p {
			t.Fatalf("%q is %+v, and said again %+v, %v", s, p, q, err)
		}
		port := p.port
		if port == "" {
			port = "80"
		}
		r := httpRight(t, HTTPAsk, httpHost+s)
		const elsewhere = "elsewhere.invalid"
		if _, err := r.Host(elsewhere, port); err == nil && p.host != elsewhere && p.host != "invalid" {
			t.Fatalf("%q allows another host", s)
		}
		if named, err := r.Host(p.host, port); (err == nil) == p.wildcard || named == p.wildcard {
			t.Fatalf("%q and its own host: %v, %v", s, named, err)
		}
	})
}
