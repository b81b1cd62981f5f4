package controlplane

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// A start is acknowledged when a voter on another host than the instance's has its record. Where the
// leader is on another host, it is that voter; of its own host's instances another voter must have
// heard, where there is one.

// witnessLocked marks a record of another node as witnessed: this node has it now. The record has just
// come off the wire, and nobody else reads it yet, or it is marked already.
func (v *view) witnessLocked(i *pb.Instance) {
	if i.GetNodeId() != v.self && !provisional(i) && i.GetDurability() != pb.Durability_DURABILITY_WITNESSED {
		i.Durability = pb.Durability_DURABILITY_WITNESSED
	}
}

// durable returns records with what is known of those of this node: whether another voter has them.
func (s *Server) durable(all []*pb.Instance) []*pb.Instance {
	for n, i := range all {
		if i.GetNodeId() == s.cfg.NodeID && !provisional(i) && s.local.Witnessed(i.GetInstanceId()) {
			all[n] = proto.CloneOf(i)
			all[n].Durability = pb.Durability_DURABILITY_WITNESSED
		}
	}
	return all
}
