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
