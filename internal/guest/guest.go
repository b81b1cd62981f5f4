package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Go returns the path of the module that the Go package in dir makes.
func Go(tb testing.TB, dir string) string {
	tb.Helper()
	path, err := BuildGo(context.Background(), dir)
	return must(tb, path, err)
}

// C returns the path of the module that a C file makes.
func C(tb testing.TB, file string) string {
	tb.Helper()
	path, err := BuildC(context.Background(), file)
	return must(tb, path, err)
}

// Actor returns the path of a small guest in C that does what its arguments say, one after the other:
// see testdata/actor.c.
func Actor(tb testing.TB) string {
	tb.Helper()
	path, err := BuildActor(context.Background())
	return must(tb, path, err)
}

// BuildActor builds the guest of [Actor].
func BuildActor(ctx context.Context) (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("guest actor: the sources of this program are not known")
	}
	return BuildC(ctx, filepath.Join(filepath.Dir(here), "testdata", "actor.c"))
}

func must(tb testing.TB, path string, err error) string {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// BuildGo builds the Go package in dir with GOOS=wasip1.
func BuildGo(ctx context.Context, dir string) (string, error) {
	version, err := output(ctx, "go", "version")
	if err != nil {
		return "", err
	}
	return cached(version, dir, func(out string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		return run(cmd)
	})
}

// BuildC builds a C file with clang and wasi-libc. They link without the compiler's own runtime
// library, which not every distribution packages for WebAssembly.
func BuildC(ctx context.Context, file string) (string, error) {
	version, err := output(ctx, "clang", "--version")
	if err != nil {
		return "", fmt.Errorf("%w: guests in C need clang, lld and wasi-libc; make test installs them", err)
	}
	return cached(version, file, func(out string) error {
		return run(exec.CommandContext(ctx, "clang", "--target=wasm32-wasi", "-O2", "-nodefaultlibs", "-lc", "-o", out, file))
	})
}

// cached returns the module built from the sources at path, building it if it is not kept yet.
func cached(compiler, path string, build func(out string) error) (string, error) {
	key, err := keyOf(compiler, path)
	if err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "wasmatrix-test-guests")
	kept := filepath.Join(dir, key+".wasm")
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	// Packages are tested at the same time: each builds under a name of its own.
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	out := filepath.Join(tmp, "guest.wasm")
	if err := build(out); err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	if err := os.Rename(out, kept); err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	return kept, nil
}

// keyOf hashes the compiler's version and all files at path.
func keyOf(compiler, path string) (string, error) {
	h := sha256.New()
	h.Write([]byte(compiler))
	err := filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(file), len(content))
		h.Write(content)
		return nil
	})
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	return name + "-" + hex.EncodeToString(h.Sum(nil))[:16], err
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

func run(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), errors.Join(err, errors.New(said.String())))
	}
	return nil
}
