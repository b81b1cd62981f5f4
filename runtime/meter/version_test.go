package meter

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// written is what the present version makes of all modules of the specification's tests.
const written = "6 d7f50c9d87730c27"

// Nodes keep rewritten modules by the version that made them, and would go on with those of an earlier rewriting.
func TestEachChangeOfTheRewritingIsAnotherVersion(t *testing.T) {
	modules, err := filepath.Glob(filepath.Join(suitesDir(t), "v[12]", "testdata", "*.wasm"))
	if err != nil || len(modules) < 1000 {
		t.Fatalf("%d modules, %v", len(modules), err)
	}
	sum := sha256.New()
	for _, path := range modules { // in the order of their names
		wasm, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out, err := Rewrite(wasm)
		fmt.Fprintln(sum, len(out), err == nil)
		sum.Write(out)
	}
	if now := fmt.Sprintf("%d %x", Version, sum.Sum(nil)[:8]); now != written {
		t.Errorf("the rewriting has changed: raise Version, unless no release has the present one, and let this test's constant be %q, not %q", now, written)
	}
}
