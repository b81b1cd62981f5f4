package guest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestExamplesBuild(t *testing.T) {
	for _, name := range []string{"hello", "ticker", "crashy"} {
		checkModule(t, Go(t, filepath.Join("..", "..", "examples", name)))
	}
	checkModule(t, C(t, filepath.Join("..", "..", "examples", "counter-c", "counter.c")))
	for _, name := range []string{"counter", "workers", "fetcher"} { // which package runtime runs
		dir := filepath.Join("..", "..", "examples", name)
		checkModule(t, Go(t, filepath.Join(dir, "go")))
		checkModule(t, C(t, filepath.Join(dir, "c", "main.c")))
		checkModule(t, Rust(t, filepath.Join(dir, "rust", "src", "main.rs")))
		checkModule(t, AssemblyScript(t, filepath.Join(dir, "as", "main.ts")))
	}
}

func checkModule(t *testing.T, path string) {
	t.Helper()
	module, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(module[:4]) != "\x00asm" {
		t.Fatalf("%s is no WebAssembly module", path)
	}
}
