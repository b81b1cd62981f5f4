package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestModulesThatCannotRunAreRefusedInOneSentence(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 2)
	good, err := os.ReadFile(actor(t))
	if err != nil {
		t.Fatal(err)
	}
	const header = "\x00asm\x01\x00\x00\x00"
	for _, test := range []struct {
		name, content string
		says          string
	}{
		{"empty", "", "empty"},
		{"text", "#!/bin/sh\necho hello\n", "WebAssembly"},
		{"component", "\x00asm\x0d\x00\x01\x00", "component"},
		{"truncated", string(good[:len(good)/2]), ""},
		// Without sections: a module, but nothing to run.
		{"no-start", header, "_start"},
		// (import "env" "launch" (func)) (func (export "_start"))
		{"missing-import", header +
			"\x01\x04\x01\x60\x00\x00" + // a type: func ()
			"\x02\x0e\x01\x03env\x06launch\x00\x00" + // the import
			"\x03\x02\x01\x00" + // a function of that type
			"\x07\x0a\x01\x06_start\x00\x01" + // its export
			"\x0a\x04\x01\x02\x00\x0b", // its body
			"launch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), test.name+".wasm")
			if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			r := c.Nodes()[1].CLI("run", "--name", test.name, file)
			e := r.Reported()
			if r.Code != 1 || e == nil || e.Code != "INVALID_REQUEST" {
				t.Fatalf("exit code %d, %s; want 1 and INVALID_REQUEST", r.Code, r.Stderr)
			}
			t.Log(e.Message)
			if !strings.Contains(e.Message, test.says) || strings.Contains(e.Message, "\n") {
				t.Errorf("the message %q is not one sentence about %q", e.Message, test.says)
			}
		})
	}
	if listed := c.Any().PS(); len(listed) != 0 {
		t.Errorf("refused modules run: %+v", listed)
	}
}

func TestWrongCommandLinesExitWithTwo(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1)
	for _, args := range [][]string{
		{"run"},
		{"run", "--no-such-flag", "x.wasm"},
		{"run", "--restart", "sometimes", "x.wasm"},
		{"run", "--count", "0", "x.wasm"},
		{"inspect"},
	} {
		if r := c.Any().CLI(args...); r.Code != 2 {
			t.Errorf("%v: exit code %d, want 2: %s", args, r.Code, r.Stderr)
		}
	}
	for code, args := range map[string][]string{
		"INSTANCE_NOT_FOUND": {"inspect", "nobody"},
		"MODULE_NOT_FOUND":   {"run", "sha256:" + strings.Repeat("ab", 32)},
		"NODE_NOT_FOUND":     {"node", "drain", "nowhere"},
	} {
		r := c.Any().CLI(args...)
		if e := r.Reported(); r.Code != 1 || e == nil || e.Code != code {
			t.Errorf("%v: exit code %d, %s; want %s", args, r.Code, r.Stderr, code)
		}
	}
}
