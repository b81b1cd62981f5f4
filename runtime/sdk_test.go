package runtime

import (
	"testing"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// The same program in each language comes to the same.
func TestSDKsAgree(t *testing.T) {
	//nolint:dupword // this is output
	const want = `absent true
set 1 true
read three 2
sum 41 true
keys a b n
deleted true false
denied the grant of capability "kv" does not hold kv:bucket:other
posted 201 why? 100000
nobody true
nothing true
received s.x hello false true
dropped 0 true true
`
	server := newServer(t)
	e := newEngine(t)
	for language, path := range map[string]string{
		"Go":             guest.Go(t, "testdata/sdk/go"),
		"C":              guest.C(t, "testdata/sdk/c/main.c"),
		"Rust":           guest.Rust(t, "testdata/sdk/rust/main.rs"),
		"AssemblyScript": guest.AssemblyScript(t, "testdata/sdk/as/main.ts"),
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			exit, out := run(t, e, compile(t, e, path), Spec{Session: newEngines().session(t, "guest", everything...)}, server.URL)
			if exit != (Exit{HasCode: true}) || out != want {
				t.Errorf("%+v\n%s\nwant\n%s", exit, out, want)
			}
		})
	}
}
