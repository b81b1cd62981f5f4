//go:build linux

package pages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// ownCommands are those that .ci/run gives itself: a test that gave them would never end.
var ownCommands = regexp.MustCompile(`^make (demo|test|build)\b`)

// Whoever has three hosts with Go and the binary gets through these pages.
func TestPagesCanBeFollowedWordByWord(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	product, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"README.md", "docs/getting-started.md"} {
		t.Run(page, func(t *testing.T) {
			steps, err := read(filepath.Join(root, page))
			if err != nil || len(steps) == 0 {
				t.Fatalf("%d steps, %v", len(steps), err)
			}
			l := newLAN(t, checkout(t, root), filepath.Dir(product.Client), "host-5", "host-6", "host-7")
			host := "host-5"
			for _, s := range steps {
				if s.host != "" {
					host = s.host
				}
				sh := l[host]
				if sh == nil {
					t.Fatalf("line %d: there is no %s", s.line, host)
				}
				if ownCommands.MatchString(s.command) {
					continue
				}
				t.Logf("%s$ %s", host, s.command)
				said, err := sh.follow(t, s)
				if err != nil {
					t.Fatalf("line %d: %s: %v\n%s", s.line, s.command, err, said)
				}
				t.Log(said)
			}
		})
	}
}

func TestPageThatIsWrongIsFound(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	text := "```console\nhost-5$ cat <<'END'\n$ one\ntwo\nEND\n$ one\ntwo…\n$ echo \\\n  three\n```\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	steps, err := read(page)
	if err != nil || len(steps) != 3 || steps[0].host != "host-5" || steps[1].host != "" || steps[2].command != "echo \\\n  three" {
		t.Fatalf("%+v, %v", steps, err)
	}
	if want := "cat <<'END'\n$ one\ntwo\nEND"; steps[0].command != want {
		t.Errorf("the first command is %q, want %q", steps[0].command, want)
	}
	for said, lacks := range map[string]string{"$ one\ntwo\n": "", "zero\n$ one, then two or three\n": "", "two $ one": "two…", "": "$ one"} {
		if got := (&step{says: []string{"$ one", "two…"}}).missing(said); got != lacks {
			t.Errorf("of %q %q is missing, want %q", said, got, lacks)
		}
	}
}

// checkout returns a directory that looks like a fresh checkout, in which commands may leave what they make.
func checkout(t *testing.T, root string) string {
	t.Helper()
	tracked, err := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Skipf("pages are followed in a checkout of git's only: %v", err)
	}
	dir := t.TempDir()
	for file := range strings.SplitSeq(strings.TrimSuffix(string(tracked), "\x00"), "\x00") {
		raw, err := os.ReadFile(filepath.Join(root, file))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		to := filepath.Join(dir, file)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, raw, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
