package node

import (
	"context"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Pulse tells whoever watches over the process how the node is.
type Pulse struct {
	// How often the node looks whether it works; 0 for never.
	Every time.Duration
	// Called each time that it does: its port, its agent and its part in the cluster have just answered.
	Beat func(Vitals)
	// Called once, when the node begins to leave, with how long that may take.
	Leaving func(within time.Duration)
}

// Vitals is how a node that works is doing.
type Vitals struct {
	// The name of the node that leads; empty where none is known.
	Leader string
	// How many nodes are alive, this one included.
	Nodes int
	// How many instances are live here.
	Instances int
}

// keepPulse looks whether the node works, until ctx ends. A ticker alone would go on while everything else hangs. What waits for
// a disk or for other nodes is not asked: starting anew would not help it, and instances run on meanwhile.
func (n *node) keepPulse(ctx context.Context) error {
	tick := time.NewTicker(n.cfg.Pulse.Every)
	defer tick.Stop()
	for {
		vitals, err := n.vitals(ctx)
		switch {
		case err == nil:
			n.cfg.Pulse.Beat(vitals)
		case ctx.Err() == nil:
			n.cfg.Log.WarnContext(ctx, "the node does not answer itself; if that lasts, its supervisor ends it", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// vitals asks the parts that a node can't work without.
func (n *node) vitals(ctx context.Context) (Vitals, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Pulse.Every)
	defer cancel()
	conn, err := n.peers.Conn(n.registration.GetRpcAddr())
	if err != nil {
		return Vitals{}, err
	}
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return Vitals{}, fmt.Errorf("ask the node's own port: %w", err)
	}
	if err := n.cluster.Answer(ctx); err != nil {
		return Vitals{}, err
	}
	n.agent.Epoch() // waits for the lock that each order takes
	v := Vitals{Instances: int(n.agent.Load().GetInstances())}
	leads := n.cluster.Leadership().NodeID
	for _, m := range n.cluster.Members() {
		if m.State == "alive" {
			v.Nodes++
		}
		if m.NodeID == leads {
			v.Leader = m.Name
		}
	}
	return v, nil
}
