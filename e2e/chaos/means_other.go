//go:build !linux

package chaos

import (
	"errors"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// newMeans returns what these faults are carried out with, and the hosts whose nodes they can strike.
func newMeans(_ rig.T, hosts int, faults []Kind, _ string) (means, []rig.Host) {
	m := means{lacking: map[Kind]error{}}
	for _, kind := range faults {
		if kind != Kill && kind != Pause && kind != PowerLoss {
			m.lacking[kind] = errors.New("it takes Linux")
		}
	}
	return m, make([]rig.Host, hosts)
}
