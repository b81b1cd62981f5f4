package kvtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmatrix/wasmatrix/capability"
)

func lists(s *suite) {
	s.wantKeys("", "", 10, false)
	keys := []string{"B", "a", "a/", "a/1", "a/10", "a/2", "aa", "b", "é", "😀"}
	for _, k := range keys {
		s.set(k, "x", capability.SetOptions{})
	}
	s.wantKeys("", "", 100, false, keys...)
	s.wantKeys("a", "", 100, false, "a", "a/", "a/1", "a/10", "a/2", "aa")
	s.wantKeys("a/", "", 100, false, "a/", "a/1", "a/10", "a/2")
	s.wantKeys("a/1", "", 100, false, "a/1", "a/10")
	s.wantKeys("c", "", 100, false)
	s.wantKeys("", "a/2", 100, false, "aa", "b", "é", "😀")
	s.wantKeys("a/", "a/1", 100, false, "a/10", "a/2")
	s.wantKeys("a/", "B", 100, false, "a/", "a/1", "a/10", "a/2") // before all with the prefix
	s.wantKeys("a/", "b", 100, false)                             // behind them
	s.wantKeys("a", "a/1x", 100, false, "a/2", "aa")              // there is no such key
	s.wantKeys("", "\x00", 2, true, "B", "a")
	if _, err := s.kv.Delete(s.ctx, bucket, "a/10", nil); err != nil {
		s.Fatal(err)
	}
	s.wantKeys("a/1", "", 100, false, "a/1")
}

func pages(s *suite) {
	const n = 25
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("k/%03d", i))
		s.set(all[i], "x", capability.SetOptions{})
	}
	s.set("l", "x", capability.SetOptions{})
	for _, limit := range []int{1, 7, n, n + 1} {
		var got []string
		after := ""
		for more := true; more; {
			var keys []string
			var err error
			if keys, more, err = s.kv.List(s.ctx, bucket, "k/", after, limit); err != nil {
				s.Fatal(err)
			}
			if len(keys) > limit || len(keys) == 0 {
				s.Fatalf("a page of %d keys, %d at most", len(keys), limit)
			}
			got = append(got, keys...)
			after = keys[len(keys)-1]
		}
		if !slices.Equal(got, all) {
			s.Errorf("in pages of %d: %q", limit, got)
		}
	}
	s.wantKeys("k/", "", n, false, all...)
}

func pagesUnderChange(s *suite) {
	for i := range 6 {
		s.set(fmt.Sprint("k", i), "x", capability.SetOptions{})
	}
	s.wantKeys("k", "", 3, true, "k0", "k1", "k2")
	for _, key := range []string{"k2", "k4"} { // the one that the next page begins after, and one on it
		if _, err := s.kv.Delete(s.ctx, bucket, key, nil); err != nil {
			s.Fatal(err)
		}
	}
	s.set("k11", "x", capability.SetOptions{}) // on a page that was read
	s.set("k33", "x", capability.SetOptions{})
	s.set("k9", "x", capability.SetOptions{})
	s.wantKeys("k", "k2", 3, true, "k3", "k33", "k5")
	s.wantKeys("k", "k5", 3, false, "k9")
}

func weirdKeys(s *suite) {
	keys := []string{
		"a.b", "a b", "a/b", "a*", "a>", ">", "*", ".", "..", "/", " ", "a\x00b", "\x00", "\x00\x00", "\n", "\t", "{a}", "%41", "\\", `"`,
		"grüße", "日本", "😀", "a\u0301", "\u0301", "\uffff", "\U0010ffff", ":", "a:b", "$", "=", "_", "-", "~", "\x7f",
		strings.Repeat("x", capability.MaxKey), strings.Repeat("é", capability.MaxKey/2),
	}
	for i, k := range keys {
		s.set(k, strconv.Itoa(i), capability.SetOptions{})
	}
	for i, k := range keys {
		if e := s.get(k); string(e.Value) != strconv.Itoa(i) {
			s.Errorf("%.20q holds %q, want %d", k, e.Value, i)
		}
	}
	s.wantKeys("", "", 1000, false, slices.Sorted(slices.Values(keys))...)
	s.wantKeys("\x00", "", 1000, false, "\x00", "\x00\x00")
	s.wantKeys("a", "a\x00b", 2, true, "a b", "a*")
	s.wantKeys("*", "", 1000, false, "*")
	s.wantKeys("\xf0\x9f", "", 1000, false, "😀") // in the middle of a letter
	s.wantKeys("a", "a\x00", 1, true, "a\x00b")
	for _, k := range keys {
		if existed, err := s.kv.Delete(s.ctx, bucket, k, nil); err != nil || !existed {
			s.Errorf("delete %.20q: %v, %v", k, existed, err)
		}
	}
	s.wantKeys("", "", 1000, false)
}

func apart(s *suite) {
	names := []string{"b", "b.c", "b-c", "b_c", "bb", "c"}
	other := s.open(s.T, s.provider+".other")
	prefixed := s.open(s.T, s.provider+"x")
	var all []capability.KV
	for _, kv := range []capability.KV{s.kv, other, prefixed} {
		for i, b := range names {
			if _, err := kv.Set(s.ctx, b, "k", []byte(fmt.Sprint(len(all), i)), capability.SetOptions{}); err != nil {
				s.Fatal(err)
			}
			if _, err := kv.Set(s.ctx, b, "c", nil, capability.SetOptions{}); err != nil {
				s.Fatal(err)
			}
		}
		all = append(all, kv)
	}
	for n, kv := range all {
		for i, b := range names {
			if e, err := kv.Get(s.ctx, b, "k"); err != nil || string(e.Value) != fmt.Sprint(n, i) {
				s.Errorf("provider %d, bucket %s holds %q, %v", n, b, e.Value, err)
			}
			if keys, more, err := kv.List(s.ctx, b, "", "", 10); err != nil || more || !slices.Equal(keys, []string{"c", "k"}) {
				s.Errorf("provider %d, bucket %s lists %q, %v", n, b, keys, err)
			}
		}
	}
	if _, err := s.kv.Delete(s.ctx, "b", "k", nil); err != nil {
		s.Fatal(err)
	}
	if _, err := other.Get(s.ctx, "b", "k"); err != nil {
		s.Errorf("another provider's key went too: %v", err)
	}
}
