package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// product is what is under test, built once for all tests.
var product rig.Product

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "wasmatrix-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	product, err = rig.Build(dir)
	if err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// actor returns the path of the small guest that does what its arguments say.
func actor(t *testing.T) string {
	t.Helper()
	return guest.Actor(t)
}
