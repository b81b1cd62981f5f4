package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// A developer sees a page, a module that follows its file, and nothing that is left behind.
func TestDevRunsWhatTheFileHoldsAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(actor(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opened, tmp, file := filepath.Join(dir, "opened"), filepath.Join(dir, "tmp"), filepath.Join(dir, "app.wasm")
	browser := "#!/bin/sh\necho \"$1\" >" + opened + ".new && mv " + opened + ".new " + opened + "\n"
	for path, content := range map[string][]byte{filepath.Join(dir, "bin", "xdg-open"): []byte(browser), file: raw, filepath.Join(tmp, "own"): nil} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), product.Node, "dev", "--nodes", "3", "--env", "WHO=me", file, "--", "env", "WHO", "forever")
	cmd.Env = append(os.Environ(), "DISPLAY=:0", "TMPDIR="+tmp, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "GORACE=halt_on_error=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := &transcript{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(said, lines.Text())
		}
	})
	defer func() {
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	runs := func(times int) func() error {
		return func() error { return rig.Want("starts", strings.Count(said.String(), "WHO=me\n"), times) }
	}
	rig.Wait(t, "the module runs", time.Minute, runs(1))

	page := regexp.MustCompile(`dev1 .*page (http://\S+)`).FindStringSubmatch(said.String())
	if page == nil {
		t.Fatal("no page is named")
	}
	resp, err := http.Get(page[1])
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte("dev1")) {
		t.Errorf("the page: %s, %v", resp.Status, err)
	}
	rig.Wait(t, "the page is opened", 10*time.Second, func() error {
		shown, err := os.ReadFile(opened)
		if err == nil && strings.TrimSpace(string(shown)) != page[1] {
			err = fmt.Errorf("%s was opened", shown)
		}
		return err
	})

	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(raw[:len(raw)/2]) // a compiler that was killed
	rig.Wait(t, "half a module is not taken", 20*time.Second, said.has("the module ends within section", "the one before goes on"))
	write(append(bytes.Clone(raw), 10, 1, 1)) // whole to look at
	rig.Wait(t, "a broken module is not taken", 20*time.Second, said.has("the module is damaged", "the one before goes on"))
	write(append(bytes.Clone(raw), 0, 3, 1, 'x', 7)) // another module, for its custom section
	rig.Wait(t, "the changed module runs", 20*time.Second, runs(2))
	rig.Wait(t, "the one before is stopped", 20*time.Second, said.has("app.wasm has changed: the new module runs"))

	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// transcript is all that a process says.
type transcript struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// has asks whether there is a line with all these words.
func (s *transcript) has(words ...string) func() error {
	return func() error {
		for line := range strings.Lines(s.String()) {
			missing := false
			for _, word := range words {
				missing = missing || !strings.Contains(line, word)
			}
			if !missing {
				return nil
			}
		}
		return fmt.Errorf("no line has %q", words)
	}
}
