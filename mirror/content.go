package mirror

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// root is what all keys begin with.
const root = "/wasmatrix/"

// keys are where the copy of one cluster is.
type keys struct{ nodes, providers string }

func keysOf(clusterID string) keys {
	own := root + url.PathEscape(clusterID) + "/"
	return keys{nodes: own + "nodes/", providers: own + "providers/"}
}

// ofNode says of a key of the copy whether it is a node's.
func (k keys) ofNode(key string) bool { return strings.HasPrefix(key, k.nodes) }

// nodeValue is what a node's key holds: fields as in the contract's member.
type nodeValue struct {
	NodeID     string            `json:"node_id"`
	Name       string            `json:"name"`
	GossipAddr string            `json:"gossip_addr"`
	RPCAddr    string            `json:"rpc_addr"`
	HTTPAddr   string            `json:"http_addr"`
	State      string            `json:"state"` // alive, draining, or dead while it is not declared lost
	Labels     map[string]string `json:"labels"`
	Version    string            `json:"version"`
}

// providerValue is what a provider's key holds: fields as in the contract's provider.
type providerValue struct {
	ProviderID   string            `json:"provider_id"`
	ProviderType string            `json:"provider_type"`
	Backend      string            `json:"backend"` // without secrets
	State        string            `json:"state"`   // running or stopped
	Constraints  map[string]string `json:"constraints"`
	Revision     uint64            `json:"revision"`
}

// content returns the keys that there should be, with their values.
//
// It is pure. Which nodes are there is the metadata's to say: those that left, were declared lost or were forgotten are not.
// Whether such a node can be heard is gossip's.
func content(k keys, nodes []*pb.Node, members []cluster.Member, providers []*pb.Provider) (map[string]string, error) {
	heard := map[string]string{}
	for _, m := range members {
		heard[m.NodeID] = m.State
	}
	all := map[string]string{}
	for _, n := range nodes {
		state, there := stateOf(n, heard[n.GetNodeId()])
		if !there {
			continue
		}
		raw, err := json.Marshal(nodeValue{
			NodeID: n.GetNodeId(), Name: n.GetName(), GossipAddr: n.GetGossipAddr(), RPCAddr: n.GetRpcAddr(), HTTPAddr: n.GetHttpAddr(),
			State: state, Labels: orEmpty(n.GetLabels()), Version: n.GetVersion(),
		})
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.GetNodeId(), err)
		}
		all[k.nodes+url.PathEscape(n.GetNodeId())] = string(raw)
	}
	for _, p := range providers {
		backend := p.GetConfig()[capability.ConfigBackend]
		if backend == "" {
			backend = capability.DefaultBackend(p.GetProviderType())
		}
		raw, err := json.Marshal(providerValue{
			ProviderID: p.GetProviderId(), ProviderType: p.GetProviderType(), Backend: capability.Redact(backend),
			State:       strings.ToLower(strings.TrimPrefix(p.GetState().String(), "PROVIDER_STATE_")),
			Constraints: orEmpty(p.GetConstraints()), Revision: p.GetRevision(),
		})
		if err != nil {
			return nil, fmt.Errorf("provider %s: %w", p.GetProviderId(), err)
		}
		all[k.providers+url.PathEscape(p.GetProviderId())] = string(raw)
	}
	return all, nil
}

// stateOf returns a node's state as `members` shows it, and whether the node is there at all.
func stateOf(n *pb.Node, heard string) (state string, there bool) {
	alive := heard == "alive"
	switch n.GetState() {
	case pb.NodeState_NODE_STATE_ACTIVE, pb.NodeState_NODE_STATE_DRAINING:
	default:
		return "", false
	}
	switch {
	case heard == "left", n.GetGivenUp() && !alive:
		return "", false
	case !alive:
		return "dead", true
	case n.GetState() == pb.NodeState_NODE_STATE_DRAINING:
		return "draining", true
	}
	return "alive", true
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
