package meter

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// That the host can read the counter costs nothing: the code is the same, byte for byte, as without the export.
func TestExportOfTheCounterChangesNoCode(t *testing.T) {
	wasm, err := os.ReadFile(guest.C(t, filepath.Join("testdata", "programs.c")))
	if err != nil {
		t.Fatal(err)
	}
	wasm = rewritten(t, wasm)
	hidden := bytes.Clone(header)
	for r := (&reader{bytes: wasm[len(header):]}); r.more(); {
		id, body := r.byte(), r.sized().bytes
		if id == secExport {
			exports := &reader{bytes: body}
			n := exports.u32()
			last := len(appendSized(nil, []byte(Counter))) + 1 + len(appendU32(nil, parsed(t, wasm).globals-1))
			body = append(appendU32(nil, n-1), body[exports.at:len(body)-last]...)
		}
		hidden = appendSection(hidden, id, body)
	}
	if bytes.Contains(hidden, []byte(Counter)) || len(hidden) >= len(wasm) {
		t.Fatal("the export is still there")
	}
	if !bytes.Equal(compiled(t, wasm), compiled(t, hidden)) {
		t.Error("the code differs")
	}
}

func parsed(t *testing.T, wasm []byte) *module {
	t.Helper()
	// What was rewritten imports what is reserved, by a name of the same length.
	m, err := parse(bytes.ReplaceAll(wasm, []byte(HostModule), bytes.Repeat([]byte{'x'}, len(HostModule))))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// compiled returns what wazero keeps of a module's code.
func compiled(t *testing.T, wasm []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache))
	if _, err := r.CompileModule(ctx, wasm); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	var code []byte
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			code, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil || len(code) == 0 {
		t.Fatalf("%d bytes of code: %v", len(code), err)
	}
	return code
}
