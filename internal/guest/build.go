package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildGo builds the Go package in dir with GOOS=wasip1.
func BuildGo(ctx context.Context, dir string) (string, error) {
	version, err := output(ctx, "go", "version")
	if err != nil {
		return "", err
	}
	return cached(version, "go", dir, func(_, _, out string) error {
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
	return cached(version, "c", file, func(_, sdk, out string) error {
		return run(exec.CommandContext(ctx, "clang", "--target=wasm32-wasi", "-O2", "-I", sdk, "-nodefaultlibs", "-lc", "-o", out, file))
	})
}

// BuildRust builds a Rust file and the crate wasmatrix, with rustc alone: neither has dependencies.
func BuildRust(ctx context.Context, file string) (string, error) {
	rustc, target, err := findRust(ctx)
	if err != nil {
		return "", err
	}
	version, err := output(ctx, rustc, "--version")
	if err != nil {
		return "", err
	}
	return cached(version+target+" with names", "rust", file, func(tmp, sdk, out string) error {
		library := filepath.Join(tmp, "libwasmatrix.rlib")
		compile := func(args ...string) error {
			args = append([]string{"--edition", "2021", "-O", "-D", "warnings", "--target", target}, args...)
			return run(exec.CommandContext(ctx, rustc, args...))
		}
		if err := compile("--crate-type", "rlib", "--crate-name", "wasmatrix", "-o", library, filepath.Join(sdk, "src", "lib.rs")); err != nil {
			return err
		}
		return compile("-C", "strip=debuginfo", "--extern", "wasmatrix="+library, "-o", out, file)
	})
}

// findRust returns a compiler that has the standard library for WASI. The first in the path may lack it where that of the
// distribution has it. Compilers before 1.78 call the target wasm32-wasi.
func findRust(ctx context.Context) (rustc, target string, err error) {
	for _, rustc := range []string{"rustc", "/usr/bin/rustc"} {
		sysroot, err := output(ctx, rustc, "--print", "sysroot")
		if err != nil {
			continue
		}
		for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} {
			found, err := filepath.Glob(filepath.Join(strings.TrimSpace(sysroot), "lib", "rustlib", target, "lib", "libstd-*.rlib"))
			if err == nil && len(found) > 0 {
				return rustc, target, nil
			}
		}
	}
	return "", "", errors.New("guests in Rust need rustc and its standard library for wasm32-wasip1 (in Debian: rustc and libstd-rust-dev-wasm32); make test installs them")
}

// BuildAssemblyScript builds an AssemblyScript file with the compiler that the package in sdk/as names.
func BuildAssemblyScript(ctx context.Context, file string) (string, error) {
	repo, err := root()
	if err != nil {
		return "", err
	}
	asc := filepath.Join(repo, "sdk", "as", "node_modules", ".bin", "asc")
	version, err := output(ctx, asc, "--version")
	if err != nil {
		return "", fmt.Errorf("%w: guests in AssemblyScript need node and npm, and npm ci in sdk/as; make test sees to that", err)
	}
	return cached(version, "as", file, func(tmp, sdk, out string) error {
		// Sources import the package by its name, as they do where npm has installed it.
		if err := os.Symlink(sdk, filepath.Join(tmp, "wasmatrix")); err != nil {
			return err
		}
		return run(exec.CommandContext(ctx, asc, file, "--path", tmp, "-O", "--runtime", "incremental", "--exportStart", "_start", "--use", "abort=~lib/wasmatrix/assembly/wasi/abort", "-o", out))
	})
}
