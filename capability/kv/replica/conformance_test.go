package replica

import (
	"testing"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/kvtest"
)

func TestThreeReplicasKeepTheContract(t *testing.T) {
	c := founded(t, 3)
	kvtest.Run(t, func(_ *testing.T, providerID string) capability.KV { return anywhere{c, providerID} })
}

func TestOneReplicaKeepsTheContract(t *testing.T) {
	c := founded(t, 1)
	kvtest.Run(t, func(_ *testing.T, providerID string) capability.KV { return anywhere{c, providerID} })
}
