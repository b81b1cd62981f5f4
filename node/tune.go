package node

import (
	"cmp"
	"context"
	"time"

	"github.com/wasmatrix/wasmatrix/agent"
)

// Tunable is what of a configuration can change while the node runs.
type Tunable struct {
	// What others may ask for when they place instances and providers.
	Labels map[string]string
	// What the node takes on at the most: instances, the sum of their memory limits in bytes, and the sum of what they are promised
	// of the CPU in millicores, 0 for all of it. What runs beyond a new bound goes on.
	MaxInstances int
	MaxMemory    uint64
	MaxCPU       int
	// How long a node must stay away before what ran there is started elsewhere.
	NodeLossGrace time.Duration
	// How long an orderly exit may take.
	DrainTimeout time.Duration
}

// followChanges applies what is changed while the node runs.
func (n *node) followChanges(ctx context.Context) error {
	for {
		select {
		case t := <-n.cfg.Changes:
			n.tune(t)
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *node) tune(t Tunable) {
	n.tuned.Store(&t)
	n.agent.SetLimits(n.limits(&t))
	n.control.SetNodeLossGrace(t.NodeLossGrace)
	select {
	case n.retuned <- struct{}{}: // the leader is told
	default: // it is about to be
	}
}

// limits are what the node takes on by what it was told.
func (n *node) limits(t *Tunable) agent.Limits {
	return agent.Limits{Instances: t.MaxInstances, Memory: t.MaxMemory, CPU: cmp.Or(t.MaxCPU, 1000*n.cores)}
}
