package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mandoc is the strictest reader of manual pages.
func TestManualPagesAreWellFormed(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed: run scripts/setup.sh")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1772625600")
	dir := filepath.Join(t.TempDir(), "man1")
	if code := Main([]string{"wasmatrix", "man", "--dir", dir}, os.Stdout, os.Stderr, Build{Version: "v1.2.3"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	if said, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	for page, words := range map[string][]string{
		"wasmatrix.1":          {"2026-03-04", "wasmatrix v1.2.3", "wasmatrix-operator(1)", "NO_COLOR", "run WebAssembly across hosts"},
		"wasmatrix-run.1":      {"wasmatrix run [flags] MODULE [-- ARG...]", "--restart POLICY", "Default: on-failure.", "Environment: WASMATRIX_RESTART.", "-o FORMAT"},
		"wasmatrix-operator.1": {"wasmatrix operator raft transfer", "wasmatrix operator snapshot save [flags] FILE", "--force"},
	} {
		text, err := exec.Command(mandoc, "-T", "ascii", "-O", "width=200", filepath.Join(dir, page)).Output()
		if err != nil {
			t.Fatal(err)
		}
		plain := withoutOverstrikes(string(text))
		for _, word := range words {
			if !strings.Contains(plain, word) {
				t.Errorf("%s lacks %q:\n%s", page, word, plain)
			}
		}
		if strings.ContainsAny(plain, "`") {
			t.Errorf("%s shows a backtick", page)
		}
	}
}

// withoutOverstrikes undoes how bold and italic are printed on paper.
func withoutOverstrikes(s string) string {
	var out []rune
	for _, r := range s {
		if r == '\b' && len(out) > 0 {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, r)
	}
	return string(out)
}

func TestTextIsNeverReadAsRoff(t *testing.T) {
	for text, want := range map[string]string{
		".SH not a heading":          `\&.SH not a heading`,
		"a\n'so' it is":              "a\n\\&'so' it is",
		`C:\n --addr`:                `C:\en \-\-addr`,
		"type `wasmatrix ps -a`":     `type \fBwasmatrix ps \-a\fR`,
		"one\ntwo\n\n    $ a\n    b": "one\ntwo\n.PP\n.RS 4\n.nf\n$ a\nb\n.fi\n.RE",
	} {
		if got := strings.TrimSuffix(prose(text), "\n"); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
