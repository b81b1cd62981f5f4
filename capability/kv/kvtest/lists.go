package kvtest

import (
	"fmt"
	"slices"

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
