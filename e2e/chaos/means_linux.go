package chaos

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// volumeSize is what a node's disk holds. A storm fills a small part of it.
const volumeSize = 512 << 20

// newMeans returns what these faults are carried out with, and the hosts whose nodes they can strike.
func newMeans(t rig.T, hosts int, faults []Kind, dir string) (means, []rig.Host) {
	t.Helper()
	m := means{disks: map[string]disk{}, lacking: map[Kind]error{}, step: (*rig.Node).StepClock, hang: func(n *rig.Node) (func(), error) {
		d, err := n.HangDisk()
		if err != nil {
			return nil, err
		}
		return d.Answer, nil
	}}
	all := make([]rig.Host, hosts)
	if network, err := rig.NewNetwork(t, hosts); err == nil {
		m.wires, all = network, network.Hosts()
	} else {
		for _, kind := range append(slices.Clone(networkFaults), Slow) {
			m.lacking[kind] = err
		}
	}
	if slices.Contains(faults, FullDisk) {
		for i := range all {
			name := fmt.Sprintf("n%d", i+1)
			volume, err := rig.NewVolume(t, filepath.Join(dir, name), volumeSize)
			if err != nil {
				m.lacking[FullDisk] = err
				break
			}
			m.disks[name], all[i].DataDir = volume, volume.Path()
		}
	}
	for kind, can := range map[Kind]func(rig.T) error{HangDisk: rig.CanHangDisks, ClockStep: rig.CanStepClocks} {
		if !slices.Contains(faults, kind) {
			continue
		}
		if err := can(t); err != nil {
			m.lacking[kind] = err
		}
	}
	return m, all
}
