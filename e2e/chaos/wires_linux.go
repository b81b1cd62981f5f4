package chaos

import "github.com/wasmatrix/wasmatrix/e2e/rig"

// newWires returns hosts whose network can be cut, or says why there are none.
func newWires(t rig.T, hosts int) (wires, []rig.Host, error) {
	t.Helper()
	network, err := rig.NewNetwork(t, hosts)
	if err != nil {
		return nil, nil, err
	}
	return network, network.Hosts(), nil
}
