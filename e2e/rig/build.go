package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Product is what is under test: one binary, or the same source built in two ways.
type Product struct {
	// What nodes run.
	Node string
	// What commands run.
	Client string
}

// Build builds the product into dir. Where the caller has the race detector, nodes have it too;
// commands, of which a test runs hundreds, start ten times as fast without.
func Build(dir string) (Product, error) {
	root, err := Root()
	if err != nil {
		return Product{}, err
	}
	p := Product{Client: filepath.Join(dir, "wasmatrix")}
	p.Node = p.Client
	if err := build(root, p.Client, "CGO_ENABLED=0", "-trimpath"); err != nil || !Race {
		return p, err
	}
	p.Node += "-race"
	return p, build(root, p.Node, "CGO_ENABLED=1", "-race")
}

// BuildRevision builds a revision of the repository into dir, for nodes and commands alike, without the race detector.
// The error says why there is none, as in a clone without history.
func BuildRevision(revision, dir string) (Product, error) {
	root, err := Root()
	if err != nil {
		return Product{}, err
	}
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		return Product{}, err
	}
	cmd := exec.Command("sh", "-c", `git -C "$1" archive "$2" >"$3/../source.tar" && tar -x -C "$3" -f "$3/../source.tar"`, "sh", root, revision, source)
	if said, err := cmd.CombinedOutput(); err != nil {
		return Product{}, fmt.Errorf("get revision %s: %w\n%s", revision, err, said)
	}
	binary := filepath.Join(dir, "wasmatrix")
	return Product{Node: binary, Client: binary}, build(source, binary, "CGO_ENABLED=0", "-trimpath")
}

func build(root, out, env string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), ".")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the binary: %w\n%s", err, said)
	}
	return nil
}

// Root returns the directory of the repository.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
