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

// Rust returns the path of the module that a Rust file makes.
func Rust(tb testing.TB, file string) string {
	tb.Helper()
	path, err := BuildRust(context.Background(), file)
	return must(tb, path, err)
}

// AssemblyScript returns the path of the module that an AssemblyScript file makes.
func AssemblyScript(tb testing.TB, file string) string {
	tb.Helper()
	path, err := BuildAssemblyScript(context.Background(), file)
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
	repo, err := root()
	if err != nil {
		return "", fmt.Errorf("guest actor: %w", err)
	}
	return BuildC(ctx, filepath.Join(repo, "internal", "guest", "testdata", "actor.c"))
}

// root is the directory that holds the SDKs.
func root() (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("the sources of this program are not known")
	}
	return filepath.Join(filepath.Dir(here), "..", ".."), nil
}

func must(tb testing.TB, path string, err error) string {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// cached returns the module built from the sources at path and the SDK it is built with, building it if it is not kept
// yet.
func cached(compiler, sdk, path string, build func(tmp, sdk, out string) error) (string, error) {
	repo, err := root()
	if err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	sdk = filepath.Join(repo, "sdk", sdk)
	key, err := keyOf(compiler, sdk, path)
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
	if err := build(tmp, sdk, out); err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	if err := os.Rename(out, kept); err != nil {
		return "", fmt.Errorf("guest %s: %w", path, err)
	}
	return kept, nil
}

// keyOf hashes the compiler's version and all files at both paths.
func keyOf(compiler, sdk, path string) (string, error) {
	h := sha256.New()
	h.Write([]byte(compiler))
	hash := func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "node_modules":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(file), len(content))
		h.Write(content)
		return nil
	}
	err := errors.Join(filepath.WalkDir(sdk, hash), filepath.WalkDir(path, hash))
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
