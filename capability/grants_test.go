package capability

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// vocabulary is what the permissions of random grants are made of: valid ones, of each type, that overlap.
var vocabulary = map[string][]string{
	TypeKV:        {KVRead, KVWrite, KVDelete, "kv:bucket:a", "kv:bucket:b", "kv:bucket:*"},
	TypeHTTP:      {HTTPAsk, "http:domain:example.com", "http:domain:Example.COM", "http:domain:*.example.com", "http:domain:a.example.com:8443", "http:domain:[::1]", "http:domain:10.0.0.1"},
	TypeMessaging: {Publish, Subscribe, "msg:publish:a.b", "msg:publish:a.*", "msg:publish:>", "msg:subscribe:a.>", "msg:subscribe:a.b", "msg:subscribe:*"},
}

// typeOf is the type of the provider that an id stands for in these tests.
var typeOf = map[string]string{"kv": TypeKV, "kv2": TypeKV, "http": TypeHTTP, "msg": TypeMessaging}

func drawGrant(t *rapid.T, atLeast int) *Grant {
	id := rapid.SampledFrom([]string{"kv", "kv2", "http", "msg"}).Draw(t, "id")
	return &Grant{
		CapabilityId: id, ProviderType: typeOf[id],
		Permissions: rapid.SliceOfN(rapid.SampledFrom(vocabulary[typeOf[id]]), atLeast, 6).Draw(t, "permissions"),
	}
}

func drawGrants(t *rapid.T, label string, atLeast int) []*Grant {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *Grant { return drawGrant(t, atLeast) }), 0, 5).Draw(t, label)
}

func copied(grants []*Grant) []*Grant {
	all := make([]*Grant, len(grants))
	for i, g := range grants {
		all[i] = proto.CloneOf(g)
	}
	return all
}

func same(a, b []*Grant) bool {
	return slices.EqualFunc(a, b, func(a, b *Grant) bool { return proto.Equal(a, b) })
}

func normalized(t *rapid.T, grants []*Grant) []*Grant {
	n, err := Normalize(grants)
	if err != nil {
		t.Fatalf("%v: %v", grants, err)
	}
	return n
}

func TestNormalFormIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		grants := drawGrants(t, "grants", 1)
		before := copied(grants)
		n := normalized(t, grants)
		if !same(grants, before) {
			t.Fatalf("the input was changed: %v, was %v", grants, before)
		}
		if !same(n, normalized(t, n)) {
			t.Fatalf("twice is not once: %v and %v", n, normalized(t, n))
		}
		shuffled := rapid.Permutation(grants).Draw(t, "shuffled")
		if !same(n, normalized(t, shuffled)) {
			t.Fatalf("the order matters: %v and %v", n, normalized(t, shuffled))
		}
		for i, g := range n {
			if i > 0 && n[i-1].GetCapabilityId() >= g.GetCapabilityId() || !slices.IsSorted(g.GetPermissions()) {
				t.Fatalf("not sorted: %v", n)
			}
		}
	})
}

func TestAssignAddsAndRevokeTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, other := normalized(t, drawGrants(t, "have", 1)), drawGrants(t, "other", 1)
		haveBefore, otherBefore := copied(have), copied(other)

		more := Assign(have, other)
		if !same(more, Assign(more, other)) {
			t.Fatalf("assigned twice is not once: %v", more)
		}
		if !same(more, normalized(t, slices.Concat(have, other))) {
			t.Fatalf("%v and %v are not together %v", have, other, more)
		}

		take := drawGrants(t, "take", 0)
		takeBefore := copied(take)
		less := Revoke(have, take)
		if !same(less, Revoke(less, take)) {
			t.Fatalf("revoked twice is not once: %v", less)
		}
		for _, g := range less {
			for _, taken := range take {
				if taken.GetCapabilityId() != g.GetCapabilityId() {
					continue
				}
				if len(taken.GetPermissions()) == 0 {
					t.Fatalf("%v is still there without all of %s", less, g.GetCapabilityId())
				}
				for _, p := range g.GetPermissions() {
					if slices.ContainsFunc(taken.GetPermissions(), func(q string) bool { return strings.EqualFold(p, q) }) {
						t.Fatalf("%s is still there: %v", p, less)
					}
				}
			}
		}
		if len(less) > 0 {
			if !same(less, normalized(t, less)) {
				t.Fatalf("what is left is not in its normal form: %v", less)
			}
		}
		if !same(have, haveBefore) || !same(other, otherBefore) || !same(take, takeBefore) {
			t.Fatal("an input was changed")
		}

		// What is revoked is allowed no more, and nothing is that was not.
		for _, one := range everyQuestion {
			if one.allowed(Compile(less)) && !one.allowed(Compile(have)) {
				t.Fatalf("%v: revoking %v allows %s", have, take, one.name)
			}
			if one.allowed(Compile(have)) && !strings.HasPrefix(one.name, TypeHTTP) && !one.allowed(Compile(more)) {
				t.Fatalf("%v: assigning %v forbids %s", have, other, one.name) // hosts narrow, and so may
			}
		}
	})
}

// everyQuestion is all that can be asked of rights, as far as the vocabulary tells answers apart.
var everyQuestion = questions()

type question struct {
	name    string
	allowed func(*Rights) bool
}

func questions() []question {
	var all []question
	ask := func(name, id string, may func(*Right) error) {
		all = append(all, question{typeOf[id] + " " + id + " " + name, func(r *Rights) bool {
			right, err := r.Of(id, typeOf[id])
			return err == nil && may(right) == nil
		}})
	}
	for _, id := range []string{"kv", "kv2"} {
		for _, does := range []Key{ReadKey, WriteKey, DeleteKey, ReadKey | WriteKey} {
			for _, bucket := range []string{"own", "a", "b", "c"} {
				ask(bucket+" "+string('0'+does), id, func(r *Right) error { return r.Bucket(does, "own", bucket) })
			}
		}
	}
	for _, host := range []string{"example.com", "a.example.com", "b.a.example.com", "other.org", "::1", "10.0.0.1"} {
		for _, port := range []string{"80", "8443"} {
			ask(host+":"+port, "http", func(r *Right) error { _, err := r.Host(host, port); return err })
		}
	}
	for _, subject := range []string{"a", "a.b", "a.c", "a.b.c", "b", ">", "a.>", "*", "a.*"} {
		ask("to "+subject, "msg", func(r *Right) error { return r.PublishTo(subject) })
		ask("from "+subject, "msg", func(r *Right) error { return r.HearFrom(subject) })
	}
	return all
}

func httpRight(tb testing.TB, permissions ...string) *Right {
	tb.Helper()
	r, err := Compile([]*Grant{{CapabilityId: "http", ProviderType: TypeHTTP, Permissions: permissions}}).Of("http", TypeHTTP)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// An older node must not take a permission that it can't read for one that is not there: that would open all hosts.
func TestHostOfANewerVersionNarrowsToo(t *testing.T) {
	newer := "http:domain:10.0.0.0/8"
	if _, err := httpRight(t, HTTPAsk, newer).Host("example.com", "80"); err == nil {
		t.Error("a grant that is narrowed to what nobody can read allows all hosts")
	}
	left := Revoke([]*Grant{{CapabilityId: "http", ProviderType: TypeHTTP, Permissions: []string{"http:domain:example.com", newer, HTTPAsk}}},
		[]*Grant{{CapabilityId: "http", Permissions: []string{"http:domain:example.com"}}})
	if _, err := httpRight(t, left[0].GetPermissions()...).Host("other.org", "80"); err == nil {
		t.Errorf("a revoke has opened all hosts: %v", left)
	}
}

func TestRevokeFindsAHostByAnySpelling(t *testing.T) {
	for granted, revoked := range map[string]string{
		"http:domain:Example.com": "http:domain:example.COM", "http:domain:[0:0::1]": "http:domain:[::1]", "http:domain:*.A.org:80": "http:domain:*.a.org:80",
		"http:domain:[::ffff:10.0.0.1]": "http:domain:10.0.0.1",
	} {
		have := []*Grant{{CapabilityId: "http", ProviderType: TypeHTTP, Permissions: []string{granted, HTTPAsk}}}
		if left := Revoke(have, []*Grant{{CapabilityId: "http", Permissions: []string{revoked}}}); len(left) > 0 {
			t.Errorf("%s is revoked, and %v is left", revoked, left)
		}
	}
	for _, apart := range [][2]string{{"http:domain:example.com", "http:domain:*.example.com"}, {"http:domain:example.com", "http:domain:example.com:80"}, {KVRead, "KV:READ"}} {
		if samePermission(apart[0], apart[1]) {
			t.Errorf("%s and %s are taken for one", apart[0], apart[1])
		}
	}
}

func TestTooManyGrantsAreRefused(t *testing.T) {
	var many []*Grant
	for i := range MaxGrants + 1 {
		many = append(many, &Grant{CapabilityId: strings.Repeat("k", i+1), ProviderType: TypeKV, Permissions: []string{KVRead}})
	}
	if _, err := Normalize(many); err == nil {
		t.Error("accepted")
	}
	if _, err := Normalize(many[1:]); err != nil {
		t.Error(err)
	}
	one := &Grant{CapabilityId: "kv", ProviderType: TypeKV}
	for i := range MaxPermissions + 1 {
		one.Permissions = append(one.Permissions, "kv:bucket:b"+strings.Repeat("x", i%50)+string(rune('a'+i/50)))
	}
	if _, err := Normalize([]*Grant{one}); err == nil {
		t.Error("a grant of too many permissions is accepted")
	}
	for _, bad := range []*Grant{{ProviderType: TypeKV, Permissions: []string{KVRead}}, {CapabilityId: "kv", ProviderType: TypeKV}, {CapabilityId: "kv", ProviderType: "mail", Permissions: []string{KVRead}}, {CapabilityId: "kv", ProviderType: TypeKV, Permissions: []string{HTTPAsk}}} {
		if _, err := Normalize([]*Grant{bad}); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func FuzzParseGrant(f *testing.F) {
	for _, s := range []string{"kv=kv:read,kv:write", "http=http:request, http:domain:*.example.com:8443", "=", "a=", "a=,", "a=b=c", " = "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGrant(s)
		if err != nil {
			return
		}
		if g.GetCapabilityId() == "" || len(g.GetPermissions()) == 0 || slices.Contains(g.GetPermissions(), "") {
			t.Fatalf("%q has become %v", s, g)
		}
		again, err := ParseGrant(g.GetCapabilityId() + "=" + strings.Join(g.GetPermissions(), ","))
		if err != nil || !proto.Equal(g, again) {
			t.Fatalf("%v is read as %v, %v", g, again, err)
		}
	})
}
