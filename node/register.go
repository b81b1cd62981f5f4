package node

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// How long one attempt to register may take before the log says that it goes on.
	registerTimeout = 5 * time.Second
	// How long it waits after such an attempt.
	registerPause = time.Second
	// How often a registered node says again what it is. That writes nothing if nothing changed,
	// and mends a cluster whose metadata was restored from an older state.
	registerAgain = 30 * time.Second
)

// register keeps the node registered with whoever leads. A refusal, such as a name that is taken,
// ends the node.
func (n *node) register(ctx context.Context) error {
	registered := false
	var (
		due    time.Time      // when it says again what it is
		quorum cluster.Quorum // which it said so to
	)
	for {
		changed := n.cluster.Changed()
		if now := n.cluster.Quorum(); now != quorum { // one that was founded anew may know no node
			quorum, due = now, time.Time{}
		}
		if (registered || n.cluster.Leadership().NodeID != "") && !time.Now().Before(due) {
			clusterID, err := n.registerOnce(ctx)
			due = time.Now().Add(registerAgain)
			switch {
			case rpc.CodeOf(err) == rpc.InvalidRequest:
				return err
			case err != nil && ctx.Err() == nil:
				n.cfg.Log.WarnContext(ctx, "not registered with the leader yet; trying again", "err", err)
				due = time.Now().Add(registerPause)
			case err == nil && !registered:
				registered = true
				n.ready(clusterID)
			}
		}
		wait := time.Until(due)
		if wait <= 0 { // for a leader
			wait = registerAgain
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-n.retuned:
			due = time.Time{}
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (n *node) registerOnce(ctx context.Context) (clusterID string, err error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	node, tuned := proto.CloneOf(n.registration), n.tuned.Load()
	node.Labels = tuned.Labels
	limits := n.limits(tuned)
	node.Limits = &pb.NodeLimits{MaxInstances: uint32(limits.Instances), MaxMemoryBytes: limits.Memory, MaxCpuMillicores: uint32(limits.CPU)}
	node.Epoch = n.agent.Epoch() // a quorum that was founded anew may not know it
	err = rpc.Retry(ctx, func(ctx context.Context) error {
		resp, err := n.self.RegisterNode(ctx, &pb.RegisterNodeRequest{
			Node: node, ClusterId: n.cluster.ClusterID(), Resuming: n.agent.Resuming(),
		})
		if err == nil {
			clusterID = resp.GetClusterId()
			n.agent.Resume(resp.GetEpoch(), resp.GetSuperseded())
		}
		return err
	})
	return clusterID, err
}

func (n *node) ready(clusterID string) {
	n.web.Met()
	info := Info{
		NodeID: n.registration.GetNodeId(), NodeName: n.cfg.NodeName, ClusterID: clusterID,
		RPCAddr: n.registration.GetRpcAddr(), HTTPAddr: n.registration.GetHttpAddr(), Gossip: n.registration.GetGossipAddr(),
	}
	n.cfg.Log.Info("member of the cluster", "node_id", info.NodeID, "cluster_id", info.ClusterID,
		"rpc_addr", info.RPCAddr, "http_addr", info.HTTPAddr, "gossip_addr", info.Gossip)
	if n.cfg.Ready != nil {
		n.cfg.Ready(info)
	}
}
