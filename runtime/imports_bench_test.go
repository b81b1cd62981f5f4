package runtime

import (
	"strconv"
	"testing"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// BenchmarkGet tells what a guest, the boundary and the check of the grant add to a look into a map: at most 1.5 µs.
func BenchmarkGet(b *testing.B) {
	b.Run("bare map", func(b *testing.B) {
		buckets := map[string]map[string]capability.Entry{"guest": {"greeting": {Value: []byte("hello"), Revision: 1}}}
		for b.Loop() {
			if len(buckets["guest"]["greeting"].Value) != 5 {
				b.Fatal("the map has changed")
			}
		}
	})
	b.Run("guest in C", func(b *testing.B) {
		e := newEngine(b)
		m := compile(b, e, guest.C(b, "testdata/get.c"))
		engines := newEngines()
		s := engines.session(b, "guest", "kv=kv:read,kv:write")
		if _, err := s.Set(b.Context(), "kv", "", "greeting", []byte("hello"), capability.SetOptions{}); err != nil {
			b.Fatal(err)
		}
		i, err := e.Instantiate(b.Context(), m, Spec{Args: []string{"guest", strconv.Itoa(b.N)}, MemoryLimit: mib, Session: s})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		if exit := i.Run(b.Context()); exit != (Exit{HasCode: true}) {
			b.Fatalf("%+v", exit)
		}
	})
}
