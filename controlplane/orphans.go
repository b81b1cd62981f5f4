package controlplane

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// When a node is declared lost, each voter takes what ran there out of that node's hands, by itself
// and alike, since the epoch is in the log: an orphan is a provisional record of the next generation on
// no node. So a new leader knows it too, the node's return can't take it back, and the first true
// record of that generation, wherever it is started, replaces it.

// setEpochs takes over the epochs of the metadata, and makes orphans of what that takes from its node.
func (v *view) setEpochs(nodes []*pb.Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range nodes {
		if n.GetEpoch() <= v.epochs[n.GetNodeId()] {
			continue
		}
		v.epochs[n.GetNodeId()] = n.GetEpoch()
		for _, i := range v.index.OnNode(n.GetNodeId()) {
			if v.takenLocked(i) {
				v.orphanLocked(i)
			}
		}
	}
}

// takenLocked says whether an instance is no longer that of the node it is on.
func (v *view) takenLocked(i *pb.Instance) bool {
	return i.GetNodeId() != "" && fact.Live(i.GetStatus()) && v.epochs[i.GetNodeId()] > i.GetNodeEpoch()
}

// orphanLocked puts an orphan in an instance's place. Of a first start that nobody was told of, nothing
// remains.
func (v *view) orphanLocked(i *pb.Instance) {
	id := i.GetInstanceId()
	if provisional(i) && i.GetGeneration() == 1 {
		v.index.Remove(id, i.GetNodeId())
		return
	}
	delete(v.doubles, i.GetNodeId()+"/"+id)
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
