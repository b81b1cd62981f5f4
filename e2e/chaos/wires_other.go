//go:build !linux

package chaos

import (
	"errors"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// newWires returns hosts whose network can be cut, or says why there are none.
func newWires(rig.T, int) (wires, []rig.Host, error) {
	return nil, nil, errors.New("only Linux has network namespaces")
}
