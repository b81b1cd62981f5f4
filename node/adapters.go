package node

import (
	"context"

	"github.com/wasmatrix/wasmatrix/agent"
	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/replica"
	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// voters tells the agent whom to report to.
type voters struct{ *cluster.Cluster }

// Voters returns the voters that are worth a connection. A node that has lost its own vote unawares would miss the newest by its
// configuration: so it takes those as well that say so themselves.
func (v voters) Voters() []agent.Voter {
	var all []agent.Voter
	for _, m := range v.Members() {
		if (m.Voter || m.ClaimsVote) && (m.State == "alive" || m.State == "suspect") {
			all = append(all, agent.Voter{NodeID: m.NodeID, Addr: m.RPCAddr})
		}
	}
	return all
}

// leader tells the gRPC server where to forward to.
type leader struct{ *cluster.Cluster }

// Leader returns the address of the leader, whether that is this node, and whether any is known.
func (l leader) Leader() (addr string, self, ok bool) {
	now := l.Leadership()
	// Raft may tell who leads before gossip tells where that is: nobody to forward to yet.
	return now.Addr, now.Self, now.NodeID != "" && now.Addr != ""
}

// keys is the group that replicates keys and values, as providers know it.
type keys struct{ *replica.Group }

// Store returns the keys of one provider.
func (k keys) Store(providerID string) capability.KV { return k.Group.Store(providerID) }

// WithCallID gives a write a number, by which the group knows a repetition of it. What is no such number gives none.
func (k keys) WithCallID(ctx context.Context, id []byte) context.Context {
	var number replica.CallID
	if len(id) != len(number) {
		return ctx
	}
	copy(number[:], id)
	return replica.WithCallID(ctx, number)
}

// servesControlPlane says why this node serves no control plane now: it knows no leader, or one that has not finished recovering.
func (n *node) servesControlPlane(ctx context.Context) error {
	status, err := n.self.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
	switch {
	case err != nil:
		return err
	case status.GetLeaderId() == "":
		return rpc.Errorf(rpc.NoLeader, "no leader is known")
	case status.GetRecovering():
		return rpc.Errorf(rpc.NoLeader, "leader %q is still asking the agents what they run", status.GetLeaderName())
	}
	return nil
}
