package runtime

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// cached is a module, and a directory that keeps what was made of it.
type cached struct {
	dir, hash string
	module    []byte
	log       bytes.Buffer
}

func newCached(t *testing.T) *cached {
	t.Helper()
	module, err := os.ReadFile(guest.Actor(t))
	if err != nil {
		t.Fatal(err)
	}
	return &cached{dir: filepath.Join(t.TempDir(), "new"), hash: fmt.Sprintf("sha256:%x", sha256.Sum256(module)), module: module}
}

var errLoaded = errors.New("the module was asked for")

// start compiles the module as a new process would; without the module, only what is on disk is there.
func (c *cached) start(t *testing.T, withModule bool) (*Engine, *Module, error) {
	t.Helper()
	e, err := New(t.Context(), Config{CacheDir: c.dir, Log: slog.New(slog.NewTextHandler(&c.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	m, err := e.Compile(t.Context(), c.hash, func(context.Context) ([]byte, error) {
		if !withModule {
			return nil, errLoaded
		}
		return c.module, nil
	})
	if err == nil {
		t.Cleanup(m.Release)
	}
	return e, m, err
}

func (c *cached) kept(t *testing.T) (path string, content []byte) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(c.dir, rewrittenPrefix+"*", "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("rewritten modules on disk: %v (%v)", found, err)
	}
	if content, err = os.ReadFile(found[0]); err != nil {
		t.Fatal(err)
	}
	return found[0], content
}

func TestRewrittenModuleIsReadFromDisk(t *testing.T) {
	c := newCached(t)
	if _, _, err := c.start(t, true); err != nil {
		t.Fatal(err)
	}
	e, m, err := c.start(t, false)
	if err != nil {
		t.Fatal(err)
	}
	if exit, _ := run(t, e, m, Spec{}, "exit", "7"); exit.Code != 7 {
		t.Errorf("it ended with %+v", exit)
	}
	i, err := e.Instantiate(t.Context(), m, Spec{Args: []string{"guest", "spin"}, MemoryLimit: 64 * mib})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if exit := i.Run(ctx); !exit.Interrupted || i.Usage().Fuel == 0 {
		t.Errorf("a guest that spins ended with %+v, and has used %+v", exit, i.Usage())
	}
}

func TestDamagedRewrittenModuleIsMadeAnew(t *testing.T) {
	c := newCached(t)
	if _, _, err := c.start(t, true); err != nil {
		t.Fatal(err)
	}
	path, whole := c.kept(t)
	flipped := func(at int) []byte {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		return damaged
	}
	for name, damaged := range map[string][]byte{
		"empty": {}, "only a checksum's beginning": whole[:10], "truncated": whole[:len(whole)-1], "longer": append(bytes.Clone(whole), 0),
		"a bit of the checksum": flipped(0), "the first bit of the module": flipped(sha256.Size), "a bit amid it": flipped(len(whole) / 2), "the last": flipped(len(whole) - 1),
	} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		c.log.Reset()
		if _, _, err := c.start(t, false); !errors.Is(err, errLoaded) {
			t.Errorf("%s: got %v, want it made anew", name, err)
		}
		if !strings.Contains(c.log.String(), "is damaged; it is made anew") {
			t.Errorf("%s: the log says %q", name, c.log.String())
		}
		if _, _, err := c.start(t, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, mended := c.kept(t); !bytes.Equal(mended, whole) {
			t.Errorf("%s: it is not mended", name)
		}
	}
}

func TestRewrittenModuleIsThatOfItsHashOnly(t *testing.T) {
	c := newCached(t)
	if _, _, err := c.start(t, true); err != nil {
		t.Fatal(err)
	}
	path, _ := c.kept(t)
	c.hash = fmt.Sprintf("sha256:%064x", 1)
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), strings.TrimPrefix(c.hash, "sha256:")+".wasm")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.start(t, false); !errors.Is(err, errLoaded) {
		t.Errorf("got %v, want it made anew", err)
	}
}

func TestModulesThatOtherVersionsRewroteAreDeleted(t *testing.T) {
	c := newCached(t)
	for _, d := range []string{rewrittenPrefix + "0-1-wazero-v0.0.0", "wazero-v0.0.0", "other"} {
		if err := os.MkdirAll(filepath.Join(c.dir, d, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.start(t, true); err != nil {
		t.Fatal(err)
	}
	c.kept(t)
	for _, d := range []string{"wazero-v0.0.0", "other"} {
		if _, err := os.Stat(filepath.Join(c.dir, d)); err != nil {
			t.Error(err) // not of this kind
		}
	}
}

func TestRewrittenModuleThatCanNotBeKeptRunsAllTheSame(t *testing.T) {
	c := newCached(t)
	if _, _, err := c.start(t, true); err != nil {
		t.Fatal(err)
	}
	path, _ := c.kept(t)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.start(t, true); err != nil {
		t.Error(err)
	}
	if !strings.Contains(c.log.String(), "is not kept on disk") {
		t.Errorf("the log says %q", c.log.String())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp")); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
}

// What a new process takes for a module whose code is on disk: read, and as it was before rewritten modules were kept.
func BenchmarkCompileFromDisk(b *testing.B) {
	module, err := os.ReadFile(guest.Go(b, "../examples/hello"))
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	compile := func(b *testing.B, hash string) {
		b.Helper()
		e, err := New(b.Context(), Config{CacheDir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		m, err := e.Compile(b.Context(), hash, func(context.Context) ([]byte, error) { return module, nil })
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		m.Release()
		_ = e.Close(context.Background())
	}
	for name, hash := range map[string]string{"Kept": fmt.Sprintf("sha256:%x", sha256.Sum256(module)), "Rewritten": "not kept"} {
		b.Run(name, func(b *testing.B) {
			b.StopTimer()
			compile(b, hash)
			for b.Loop() {
				compile(b, hash)
			}
		})
	}
}
