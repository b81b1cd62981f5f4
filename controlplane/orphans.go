package controlplane

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// When a node is declared lost, each voter whose copy is as new as the leader's takes what ran there out of
// that node's hands, by itself and alike, since epoch and position are in the log: an orphan is a provisional record of the next generation on
// no node. So a new leader knows it too, the node's return can't take it back, and the first true
// record of that generation, wherever it is started, replaces it.

// setEpochs takes over the epochs of the metadata, and makes orphans of what that takes from its node. Of a
// node that reports just now, as one that came back at the very moment, this copy is as good as any.
func (v *view) setEpochs(nodes []*pb.Node, reports func(nodeID string) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range nodes {
		if n.GetEpoch() <= v.epochs[n.GetNodeId()] {
			continue
		}
		id := n.GetNodeId()
		v.epochs[id] = n.GetEpoch()
		v.lost[id] = position{n.GetLostBootId(), n.GetLostSeq()}
		current := v.currentLocked(id, v.nodes[id]) || reports(id)
		for _, i := range v.index.OnNode(id) {
			switch {
			case !v.takenLocked(i):
			case current:
				v.orphanLocked(i)
			default:
				v.index.Remove(i.GetInstanceId(), id)
				v.outliveLocked(i)
			}
		}
		if !current {
			delete(v.nodes, id) // so that the node tells everything again
		}
	}
}

// currentLocked says whether a copy of a lost node's records is as new as the leader's was when it
// declared the node lost. In an older one something may run that was stopped since.
func (v *view) currentLocked(nodeID string, copied position) bool {
	lost := v.lost[nodeID]
	return copied.BootID == lost.BootID && copied.Seq >= lost.Seq
}

// trusted returns those records of a voter's copy of a node that can be gone by: of a copy that is older than
// the node's loss, not those that the node has lost.
func (v *view) trusted(nodeID string, at position, all []*pb.Instance) []*pb.Instance {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.currentLocked(nodeID, at) {
		return all
	}
	return slices.DeleteFunc(all, v.takenLocked)
}

// takenLocked says whether an instance is no longer that of the node it is on.
func (v *view) takenLocked(i *pb.Instance) bool {
	return i.GetNodeId() != "" && fact.Live(i.GetStatus()) && v.epochs[i.GetNodeId()] > i.GetNodeEpoch()
}

// taken says whether an instance is no longer that of the node it is on.
func (v *view) taken(i *pb.Instance) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.takenLocked(i)
}

// orphanLocked puts an orphan in an instance's place. Of a first start that nobody was told of, nothing
// remains, and what was only being moved to the lost node goes on where it is.
func (v *view) orphanLocked(i *pb.Instance) {
	id := i.GetInstanceId()
	if provisional(i) && i.GetGeneration() == 1 {
		v.index.Remove(id, i.GetNodeId())
		return
	}
	delete(v.doubles, i.GetNodeId()+"/"+id)
	if now := v.index.Get(id); now != nil && !provisional(now) && now.GetNodeId() != i.GetNodeId() && fact.Live(now.GetStatus()) {
		return // it runs elsewhere too, where nobody would end it any more
	}
	if old := v.behind[id]; old != nil && old.GetNodeId() != i.GetNodeId() && !v.takenLocked(old) {
		if now := v.index.Get(id); now != nil && v.takenLocked(now) {
			v.index.Remove(id, now.GetNodeId())
			v.comeBackLocked(id)
		}
		return
	}
	o := orphaned(i, time.Now())
	if v.index.Put(o) && fact.Live(o.GetStatus()) {
		v.orphans[id] = struct{}{}
		v.wakeLocked()
	}
}

// orphan says whether a record is of an instance that no node has.
func orphan(i *pb.Instance) bool { return provisional(i) && i.GetNodeId() == "" }

// orphaned is what becomes of an instance when its node is declared lost.
func orphaned(i *pb.Instance, now time.Time) *pb.Instance {
	o := &pb.Instance{
		InstanceId: i.GetInstanceId(),
		Spec:       i.GetSpec(),
		Generation: i.GetGeneration() + 1,
		Durability: i.GetDurability(),
		CreatedAt:  i.GetCreatedAt(),
		PlacedAt:   endOfTime,
		StartedAt:  i.GetStartedAt(),
		Restarts:   i.GetRestarts(),
		Grants:     i.GetGrants(),
		Usage:      fact.AtRest(i.GetUsage()),
		Status:     pb.InstanceStatus_INSTANCE_STATUS_RESTARTING,
		LastError:  fmt.Sprintf("its node %s was lost", i.GetNodeName()),
	}
	if i.GetSpec().GetRestartPolicy().GetPolicyType() == pb.PolicyType_POLICY_TYPE_NEVER {
		o.Status = pb.InstanceStatus_INSTANCE_STATUS_LOST
		o.NodeName = i.GetNodeName()
		o.FinishedAt = timestamppb.New(now)
		o.LastError += ", and its restart policy is never"
	}
	return o
}

// homeless returns the instances that wait for a node: orphans, and those that were orphans and whose
// order to another node came to nothing known. The channel is closed when there are more.
func (v *view) homeless() ([]*pb.Instance, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var found []*pb.Instance
	for id := range v.orphans {
		if i := v.index.Get(id); i != nil && provisional(i) && fact.Live(i.GetStatus()) {
			found = append(found, i)
		} else {
			delete(v.orphans, id)
		}
	}
	return found, v.changed
}

// exchange puts one provisional record in the place of another, and says whether that was still there.
func (v *view) exchange(old, now *pb.Instance) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.index.Get(old.GetInstanceId()) != old {
		return false
	}
	v.index.Remove(old.GetInstanceId(), old.GetNodeId())
	v.putLocked(now)
	return true
}
