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
