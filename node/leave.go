package node

import (
	"context"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// leaveReserve is kept of the drain timeout for handing over leadership and vote after the drain.
const leaveReserve = 5 * time.Second

// leave moves the instances away, stops the rest, and takes the node out of the cluster, all within
// the drain timeout. What does not work out is logged: the node goes in any case.
func (n *node) leave(ctx context.Context) {
	within := n.tuned.Load().DrainTimeout
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	began := time.Now()
	n.cfg.Log.InfoContext(ctx, "leaving the cluster in order; a second signal ends at once", "timeout", within)
	if n.hasCompany() {
		n.drain(ctx, within)
	}
	n.agent.StopAll(ctx)
	if err := n.cluster.Leave(ctx); err != nil {
		n.cfg.Log.WarnContext(ctx, "did not leave the cluster in order", "err", err)
	}
	n.cfg.Log.InfoContext(ctx, "left", "duration", time.Since(began))
}

// hasCompany says whether there is another node that could take the instances.
func (n *node) hasCompany() bool {
	for _, m := range n.cluster.Members() {
		if !m.Self && m.State == "alive" {
			return true
		}
	}
	return false
}

func (n *node) drain(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, max(within-leaveReserve, within/2))
	defer cancel()
	var resp *pb.DrainNodeResponse
	err := rpc.Retry(ctx, func(ctx context.Context) (err error) {
		resp, err = n.self.DrainNode(ctx, &pb.DrainNodeRequest{Node: n.registration.GetNodeId(), Leave: true})
		return err
	})
	if err != nil {
		n.cfg.Log.WarnContext(ctx, "could not move the instances away; they are stopped", "err", err)
		return
	}
	for _, u := range resp.GetUnmoved() {
		n.cfg.Log.WarnContext(ctx, "an instance could not be moved; it is stopped", "instance_id", u.GetInstanceId(), "err", u.GetMessage())
	}
	n.cfg.Log.InfoContext(ctx, "moved the instances away", "moved", len(resp.GetMoved()), "unmoved", len(resp.GetUnmoved()))
}
