package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// What the guide shows can be copied.
func TestGuestsOfTheGuideBuild(t *testing.T) {
	repo, err := root()
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile(filepath.Join(repo, "docs", "guests.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := func(language, file string) string {
		t.Helper()
		block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(guide)
		if block == nil {
			t.Fatalf("the guide shows nothing in %s", language)
		}
		path := filepath.Join(t.TempDir(), "shown", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, block[1], 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	checkModule(t, C(t, shown("c", "guest.c")))
	checkModule(t, Rust(t, shown("rust", "guest.rs")))
	checkModule(t, AssemblyScript(t, shown("ts", "guest.ts")))

	// A module of its own, as users have.
	dir := filepath.Dir(shown("go", "main.go"))
	module := fmt.Sprintf("module guest\n\ngo 1.26.0\n\nrequire github.com/wasmatrix/wasmatrix v0.0.0\n\nreplace github.com/wasmatrix/wasmatrix => %s\n", repo)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	checkModule(t, Go(t, dir))
}
