package cluster

import (
	"testing"
	"time"
)

// Gossip's ticks alone would take four of them, which is a second.
func TestWhatANodeSaysOfItselfIsPassedOnAtOnce(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 2)
	before := time.Now()
	if err := nodes[0].tell(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 3*nodes[0].cfg.timing().gossipInterval {
		t.Errorf("it took %s", took)
	}
}
