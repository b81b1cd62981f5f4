package capability

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// model says by the words of the contract what a call comes to. It shares no code with what it judges.
type model struct {
	name   string
	grants map[string]map[string]bool // permissions by capability
}

func (m *model) holds(id, typ string) (map[string]bool, Status) {
	switch permissions, ok := m.grants[id]; {
	case !ok:
		return nil, UnknownGrant
	case typeOf[id] != typ:
		return nil, InvalidRequest
	default:
		return permissions, OK
	}
}

func denied(ok bool) Status {
	if ok {
		return OK
	}
	return PermissionDenied
}

func (m *model) keys(id, bucket string, needs ...string) Status {
	permissions, status := m.holds(id, TypeKV)
	if status != OK {
		return status
	}
	ok := bucket == "" || bucket == m.name || permissions["kv:bucket:*"] || permissions["kv:bucket:"+bucket]
	for _, p := range needs {
		ok = ok && permissions[p]
	}
	return denied(ok)
}

func (m *model) hosts(id string, hosts ...string) Status {
	permissions, status := m.holds(id, TypeHTTP)
	if status != OK {
		return status
	}
	for _, host := range hosts {
		narrowed, named := false, false
		for p := range permissions {
			pattern, ok := strings.CutPrefix(strings.ToLower(p), "http:domain:")
			if !ok {
				continue
			}
			narrowed = true
			pattern = strings.Trim(pattern, "[]")
			if strings.HasSuffix(pattern, ":8443") { // this model asks for port 80
				continue
			}
			pattern = strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.+`)
			named = named || regexp.MustCompile("^"+pattern+"$").MatchString(host)
		}
		if !permissions["http:request"] || narrowed && !named {
			return PermissionDenied
		}
	}
	return OK
}

// topic says whether one permission means all subjects that a pattern stands for.
func (m *model) topic(id, verb, pattern string) Status {
	permissions, status := m.holds(id, TypeMessaging)
	if status != OK {
		return status
	}
	for p := range permissions {
		outer, ok := strings.CutPrefix(p, verb+":")
		if p == verb {
			outer, ok = ">", true
		}
		if !ok {
			continue
		}
		all := !strings.HasPrefix(pattern, "$")
		for _, s := range subjects {
			all = all && (!stands(pattern, s) || stands(outer, s))
		}
		if all {
			return OK
		}
	}
	return PermissionDenied
}

// heard is a subscription as the model sees it.
type heard struct {
	id      uint32
	pattern string
	waiting []string
	cut     bool
}

type player struct {
	model
	session *Session
	grants  []*Grant
	heard   []*heard
}

func (p *player) set(grants []*Grant) {
	p.grants = grants
	p.session.SetGrants(grants)
	p.model.grants = map[string]map[string]bool{}
	for _, g := range grants {
		p.model.grants[g.GetCapabilityId()] = map[string]bool{}
		for _, one := range g.GetPermissions() {
			p.model.grants[g.GetCapabilityId()][one] = true
		}
	}
	for _, h := range p.heard {
		if p.topic("msg", "msg:subscribe", h.pattern) != OK {
			h.cut, h.waiting = true, nil
		}
	}
}

// The law of the package: whatever is granted and revoked, over several instances, a call succeeds exactly when a grant at
// that moment names it, and nobody reaches what is another's.
func TestCallSucceedsExactlyWhenAGrantNamesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHouse()
		stored := map[[2]string]string{}
		players := map[string]*player{}
		for id, name := range map[string]string{"i1": "a", "i2": "own", "i3": "own", "i4": "third"} {
			p := &player{model: model{name: name}, session: NewSession(Caller{InstanceID: id, Name: name}, nil, h, &counter{})}
			p.set(nil)
			players[id] = p
			defer p.session.Close()
		}
		ctx := t.Context()
		expect := func(what string, err error, want Status) {
			if got := statusOf(err); got != want {
				t.Fatalf("%s: got %s (%v), want %s", what, got, err, want)
			}
		}
		draw := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
		who := func() *player { return players[draw("instance", "i1", "i2", "i3", "i4")] }
		capability := func() string { return draw("capability", "kv", "kv2", "http", "msg", "none") }

		t.Repeat(map[string]func(*rapid.T){
			"assign": func(t *rapid.T) { p := who(); p.set(Assign(p.grants, drawGrants(t, "grants", 1))) },
			"revoke": func(t *rapid.T) { p := who(); p.set(Revoke(p.grants, drawGrants(t, "grants", 0))) },
			"read": func(t *rapid.T) {
				p, id, bucket, key := who(), capability(), draw("bucket", "", "own", "a", "b", "third"), draw("key", "x", "y")
				own := [2]string{bucket, key}
				if bucket == "" {
					own[0] = p.name
				}
				want := p.keys(id, bucket, "kv:read")
				e, err := p.session.Get(ctx, id, bucket, key)
				if value, ok := stored[own]; want == OK && !ok {
					want = NotFound
				} else if want == OK && string(e.Value) != value {
					t.Fatalf("%v holds %q, want %q", own, e.Value, value)
				} else if want != OK && e.Value != nil {
					t.Fatalf("%v is shown to whom it is denied", own)
				}
				expect("get", err, want)
				keys, _, err := p.session.List(ctx, id, bucket, "", "", 0)
				expect("list", err, p.keys(id, bucket, "kv:read"))
				if err == nil {
					var all []string
					for at := range stored {
						if at[0] == own[0] {
							all = append(all, at[1])
						}
					}
					if slices.Sort(all); !slices.Equal(keys, all) {
						t.Fatalf("bucket %s has %v, want %v", own[0], keys, all)
					}
				}
			},
			"write": func(t *rapid.T) {
				p, id, bucket, key := who(), capability(), draw("bucket", "", "own", "a", "b", "third"), draw("key", "x", "y")
				own := [2]string{bucket, key}
				if bucket == "" {
					own[0] = p.name
				}
				switch draw("what", "set", "delete", "increment") {
				case "set":
					value := fmt.Sprint(len(stored))
					want := p.keys(id, bucket, "kv:write")
					_, err := p.session.Set(ctx, id, bucket, key, []byte(value), SetOptions{})
					if expect("set", err, want); want == OK {
						stored[own] = value
					}
				case "delete":
					want := p.keys(id, bucket, "kv:delete")
					_, err := p.session.Delete(ctx, id, bucket, key, nil)
					if expect("delete", err, want); want == OK {
						delete(stored, own)
					}
				case "increment":
					want := p.keys(id, bucket, "kv:read", "kv:write")
					n, err := p.session.Increment(ctx, id, bucket, key, 1)
					if expect("increment", err, want); want == OK {
						stored[own] = fmt.Sprint(n)
					}
				}
			},
			"request": func(t *rapid.T) {
				p, id := who(), capability()
				hosts := rapid.SliceOfN(rapid.SampledFrom([]string{"example.com", "a.example.com", "evilexample.com", "example.com.evil.org", "::1", "10.0.0.1"}), 1, 3).Draw(t, "hosts")
				_, err := p.session.Request(ctx, id, &HTTPRequest{URL: strings.Join(hosts, " ")})
				expect(fmt.Sprint("request to ", hosts), err, p.hosts(id, hosts...))
			},
			"publish": func(t *rapid.T) {
				p, id, subject := who(), capability(), rapid.SampledFrom(subjects).Draw(t, "subject")
				want := p.topic(id, "msg:publish", subject)
				err := p.session.Publish(ctx, id, subject, []byte(subject))
				if expect("publish "+subject, err, want); want != OK {
					return
				}
				for _, other := range players {
					for _, s := range other.heard {
						if !s.cut && stands(s.pattern, subject) {
							s.waiting = append(s.waiting, subject)
						}
					}
				}
			},
			"subscribe": func(t *rapid.T) {
				p, id, pattern := who(), capability(), drawPattern(t, "pattern")
				want := p.topic(id, "msg:subscribe", pattern)
				n, err := p.session.Subscribe(ctx, id, pattern, true)
				if expect("subscribe "+pattern, err, want); want == OK {
					p.heard = append(p.heard, &heard{id: n, pattern: pattern})
				}
			},
			"receive": func(t *rapid.T) {
				p := who()
				if len(p.heard) == 0 {
					_, _, err := p.session.Receive(ctx, 0, 0)
					expect("receive nothing", err, InvalidRequest)
					return
				}
				n := rapid.IntRange(0, len(p.heard)-1).Draw(t, "subscription")
				s := p.heard[n]
				from, m, err := p.session.Receive(ctx, s.id, 0)
				switch {
				case s.cut:
					if got := statusOf(err); got != PermissionDenied && got != UnknownGrant {
						t.Fatalf("receive of what was revoked: %v", err)
					}
					p.heard = slices.Delete(p.heard, n, n+1)
				case len(s.waiting) == 0:
					expect("receive", err, Timeout)
				case err != nil || from != s.id || m.Subject != s.waiting[0] || string(m.Data) != s.waiting[0]:
					t.Fatalf("got %q from %d, %v, want %s from %d", m.Subject, from, err, s.waiting[0], s.id)
				default:
					s.waiting = s.waiting[1:]
				}
			},
			"unsubscribe": func(t *rapid.T) {
				p := who()
				n := rapid.Uint32Range(1, 5).Draw(t, "number")
				mine := slices.IndexFunc(p.heard, func(s *heard) bool { return s.id == n })
				want := OK
				if mine < 0 {
					want = InvalidRequest
				} else {
					p.heard = slices.Delete(p.heard, mine, mine+1)
				}
				expect("unsubscribe", p.session.Unsubscribe(n), want)
			},
			"": func(t *rapid.T) { // what is open at the engine is what somebody may hear
				open := 0
				for _, p := range players {
					for _, s := range p.heard {
						if !s.cut {
							open++
						}
					}
				}
				if h.bus.open() != open {
					t.Fatalf("%d subscriptions are open at the engine, want %d", h.bus.open(), open)
				}
			},
		})
	})
}

func TestArgumentsOfAGuestAreChecked(t *testing.T) {
	h := newHouse()
	s := NewSession(Caller{InstanceID: "i", Name: "own"}, []*Grant{
		{CapabilityId: "kv", ProviderType: TypeKV, Permissions: []string{KVRead, KVWrite, KVDelete, "kv:bucket:*"}},
		{CapabilityId: "msg", ProviderType: TypeMessaging, Permissions: []string{Publish, Subscribe}},
	}, h, &counter{})
	defer s.Close()
	ctx := t.Context()
	get := func(bucket, key string) error { _, err := s.Get(ctx, "kv", bucket, key); return err }
	set := func(value []byte, o SetOptions) error { _, err := s.Set(ctx, "kv", "", "k", value, o); return err }
	hear := func(subject string) error { _, err := s.Subscribe(ctx, "msg", subject, false); return err }
	for _, one := range []struct {
		err  error
		want Status
	}{
		{get("", ""), InvalidRequest},
		{get("", strings.Repeat("k", MaxKey+1)), InvalidRequest},
		{get("", "\xff"), InvalidRequest},
		{get("", strings.Repeat("k", MaxKey)), NotFound},
		{get("../other", "k"), InvalidRequest},
		{set(make([]byte, MaxValue), SetOptions{}), OK},
		{set(make([]byte, MaxValue+1), SetOptions{}), Exhausted},
		{set(nil, SetOptions{TTL: -1}), InvalidRequest},
		{s.Publish(ctx, "msg", "a.*", nil), InvalidRequest},
		{s.Publish(ctx, "msg", "a.>", nil), InvalidRequest},
		{s.Publish(ctx, "msg", "a..b", nil), InvalidRequest},
		{s.Publish(ctx, "msg", "a b", nil), InvalidRequest},
		{s.Publish(ctx, "msg", "a\r\nPUB x 1", nil), InvalidRequest},
		{s.Publish(ctx, "msg", "", nil), InvalidRequest},
		{s.Publish(ctx, "msg", "a", make([]byte, MaxMessage+1)), Exhausted},
		{s.Publish(ctx, "msg", "a", make([]byte, MaxMessage)), OK},
		{hear(""), InvalidRequest},
		{hear(">.a"), InvalidRequest},
		{hear("a\n"), InvalidRequest},
		{hear(strings.Repeat("a.", 200) + "a"), InvalidRequest},
		{hear("a*b"), OK},
	} {
		want(t, one.err, one.want)
	}
}

func TestStatusesHaveOneWordEach(t *testing.T) {
	seen := map[string]bool{}
	for s := Interrupted; s <= OK; s++ {
		word := s.String()
		back, ok := StatusOf(word)
		if !ok || back != s || seen[word] || strings.HasPrefix(word, "STATUS_") {
			t.Errorf("%d is %q", s, word)
		}
		seen[word] = true
	}
	cause := errors.New("cause")
	if err := fmt.Errorf("around: %w", Errorf(Conflict, "with %w", cause)); FromError(err).Status != Conflict || !errors.Is(err, cause) {
		t.Errorf("%v has lost its status or its cause", err)
	}
}
