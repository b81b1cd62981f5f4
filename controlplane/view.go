package controlplane

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// view is what this node knows of all instances: a cache of what their agents said.
type view struct {
	self string // this node's id

	mu sync.RWMutex // guards all below

	index *fact.Index
	nodes map[string]position // node id → how far its agent's story is known
	// Node id → instance id → what its agent answered an order with, ahead of the report that has it.
	ahead map[string]map[string]answer
	// Node id → its epoch in the metadata. What a node accepted in a lower one is no longer its own.
	epochs map[string]uint64
	lost   map[string]position // node id → how far its story was known when it was declared lost last
	// Instance id → the record that a reservation stands in front of, while it is being moved. It runs on.
	behind map[string]*pb.Instance
	// Live instances that another node runs with better right: the leader stops them.
	doubles map[string]*pb.Instance // node id + "/" + instance id
	// Ids of orphans that are to be started elsewhere; some may have been started by now.
	orphans map[string]struct{}
	changed chan struct{} // closed and replaced when doubles or orphans grow
}

// position says how much of an agent's story is known: all changes up to Seq of its life BootID.
type position struct {
	BootID string
	Seq    uint64
}

func newView(self string) *view {
	return &view{
		self:    self,
		index:   fact.NewIndex(),
		nodes:   map[string]position{},
		epochs:  map[string]uint64{},
		lost:    map[string]position{},
		ahead:   map[string]map[string]answer{},
		behind:  map[string]*pb.Instance{},
		doubles: map[string]*pb.Instance{},
		orphans: map[string]struct{}{},
		changed: make(chan struct{}),
	}
}

// position returns how far the story of a node's agent is known.
func (v *view) position(nodeID string) position {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.nodes[nodeID]
}

// replace takes all that an agent has at a position for what was known of its node. It is ignored
// if the same life of the agent is known further already.
func (v *view) replace(nodeID string, at position, all []*pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.nodes[nodeID]; known.BootID == at.BootID && known.Seq > at.Seq {
		return
	}
	gone := v.index.RemoveNode(nodeID)
	v.forgetDoublesLocked(nodeID)
	maps.DeleteFunc(v.behind, func(_ string, i *pb.Instance) bool { return i.GetNodeId() == nodeID })
	v.nodes[nodeID] = at
	for _, i := range all {
		v.putLocked(i)
	}
	v.catchUpLocked(nodeID, at)
	for id := range v.behind {
		v.comeBackLocked(id)
	}
	for _, i := range gone {
		v.outliveLocked(i)
	}
}

// catchUpLocked forgets the answers that the story of a node has caught up with, and has the others, which a
// list that was made before them lacks, be there again.
func (v *view) catchUpLocked(nodeID string, at position) {
	for id, a := range v.ahead[nodeID] {
		if a.at.BootID == at.BootID && a.at.Seq > at.Seq {
			v.putLocked(a.instance)
			continue
		}
		delete(v.ahead[nodeID], id)
	}
	if len(v.ahead[nodeID]) == 0 {
		delete(v.ahead, nodeID)
	}
}

// advance applies the changes that bring a node from after to at. It says false, and changes
// nothing, where that leaves a gap.
func (v *view) advance(nodeID string, after uint64, at position, changed []*pb.Instance, removed []string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := v.nodes[nodeID]
	if known.BootID != at.BootID || after > known.Seq {
		return false
	}
	if at.Seq <= known.Seq { // told twice
		return true
	}
	for _, i := range changed {
		v.putLocked(i)
	}
	for _, id := range removed {
		gone := v.index.Get(id)
		v.index.Remove(id, nodeID)
		delete(v.doubles, nodeID+"/"+id)
		if v.behind[id].GetNodeId() == nodeID {
			delete(v.behind, id)
		}
		v.comeBackLocked(id)
		v.outliveLocked(gone)
	}
	v.nodes[nodeID] = at
	v.catchUpLocked(nodeID, at)
	return true
}

// answer is a record that an agent answered an order with, and a position in its story that has it.
type answer struct {
	at       position
	instance *pb.Instance
}

// putAhead merges in a record that an agent answered an order with, ahead of its report.
func (v *view) putAhead(at position, i *pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.putLocked(i)
	known := v.nodes[i.GetNodeId()]
	if known.BootID == at.BootID && known.Seq >= at.Seq {
		return
	}
	if v.ahead[i.GetNodeId()] == nil {
		v.ahead[i.GetNodeId()] = map[string]answer{}
	}
	v.ahead[i.GetNodeId()][i.GetInstanceId()] = answer{at, i}
}

// put merges in records.
func (v *view) put(instances ...*pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range instances {
		v.putLocked(i)
	}
}

func (v *view) putLocked(i *pb.Instance) {
	v.witnessLocked(i)
	if v.takenLocked(i) {
		v.orphanLocked(i)
		return
	}
	old := v.index.Get(i.GetInstanceId())
	v.index.Put(i)
	delete(v.doubles, i.GetNodeId()+"/"+i.GetInstanceId())
	switch now := v.index.Get(i.GetInstanceId()); {
	case !provisional(now) && now.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_STARTING:
		if left := v.behind[i.GetInstanceId()]; left != nil && left.GetNodeId() != now.GetNodeId() {
			v.doubleLocked(left) // it has moved
		}
		delete(v.behind, i.GetInstanceId())
	case now != i && !provisional(i): // the old node goes on reporting
		v.behind[i.GetInstanceId()] = i
	}
	// A reservation ends nobody: what it stands for may yet fail to start.
	if old == nil || old.GetNodeId() == i.GetNodeId() || provisional(old) || provisional(i) || v.behind[i.GetInstanceId()] != nil {
		return
	}
	if fact.Merge(old, i) == i {
		v.doubleLocked(old)
	} else {
		v.doubleLocked(i)
	}
}

// doubleLocked notes that an instance runs a second time, so that the leader stops it.
func (v *view) doubleLocked(i *pb.Instance) {
	if !fact.Live(i.GetStatus()) {
		return
	}
	v.doubles[i.GetNodeId()+"/"+i.GetInstanceId()] = i
	v.wakeLocked()
}

// doublesOf returns where an instance runs with less right than its record.
func (v *view) doublesOf(id string) (all []*pb.Instance) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, i := range v.doubles {
		if i.GetInstanceId() == id {
			all = append(all, i)
		}
	}
	return all
}

// doubtful notes that a node may run an instance whose start it has not answered, if that is known to be elsewhere by now.
func (v *view) doubtful(reserved *pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.index.Get(reserved.GetInstanceId()); now != nil && now.GetNodeId() != reserved.GetNodeId() {
		v.doubleLocked(reserved)
	}
}

func (v *view) forgetDoublesLocked(nodeID string) {
	maps.DeleteFunc(v.doubles, func(_ string, i *pb.Instance) bool { return i.GetNodeId() == nodeID })
}

// doubled returns the instances that run a second time, and a channel that is closed when there are
// more.
func (v *view) doubled() ([]*pb.Instance, <-chan struct{}) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Collect(maps.Values(v.doubles)), v.changed
}

// settled forgets a double that its node has ended.
func (v *view) settled(i *pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.doubles, i.GetNodeId()+"/"+i.GetInstanceId())
}

// get returns the record of an id, or nil.
func (v *view) get(id string) *pb.Instance {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.index.Get(id)
}

// resolve returns the one instance that a reference stands for.
func (v *view) resolve(ref string) (*pb.Instance, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i, err := v.index.Resolve(ref)
	return v.shownLocked(i), err
}

// resolveAll returns every instance that a reference stands for.
func (v *view) resolveAll(ref string) ([]*pb.Instance, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.index.ResolveAll(ref)
}

// list returns the records of the name or node that a request asks for, or all; which of them to show is fact.Select's to say.
// nodeID is the id that the request's node stands for, if it names one.
func (v *view) list(req *pb.ListInstancesRequest, nodeID string) []*pb.Instance {
	found := v.find(req.GetName(), nodeID)
	if req.GetNode() != "" { // what is moving there is shown where it is
		found = slices.DeleteFunc(found, func(i *pb.Instance) bool { return i.GetNodeId() != nodeID })
	}
	return found
}

// find returns the records of a name, of a node, or all, as users see them.
func (v *view) find(name, nodeID string) (found []*pb.Instance) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case name != "":
		found = v.index.Named(name)
	case nodeID != "":
		found = v.index.OnNode(nodeID)
	default:
		found = v.index.All()
	}
	if len(v.behind) > 0 {
		for n, i := range found {
			found[n] = v.shownLocked(i)
		}
	}
	return found
}

// onNode returns the records of a node.
func (v *view) onNode(nodeID string) []*pb.Instance {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.index.OnNode(nodeID)
}

// counts returns how many instances have each status, by the contract's words.
func (v *view) counts() map[string]uint32 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	counts := map[string]uint32{}
	for s, n := range v.index.CountByStatus() {
		counts[fact.StatusName(s)] = uint32(n)
	}
	return counts
}

// usage returns what the live instances of a node take up.
func (v *view) usage(nodeID string) fact.Usage {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.index.Usage(nodeID)
}

func (v *view) wakeLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// The leader counts an instance from the moment that it has chosen a node for it. Until the agent's
// own record comes, a provisional one stands in its place: it has no revision, and a placement time
// so late that any true record of the generation wins over it.

var endOfTime = &timestamppb.Timestamp{Seconds: 253402300799}

func provisional(i *pb.Instance) bool { return i.GetRevision() == 0 }

// reserve counts a chosen instance at its node.
func (v *view) reserve(i *pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.index.Get(i.GetInstanceId()); old != nil && !provisional(old) {
		v.behind[i.GetInstanceId()] = old
	}
	v.index.Put(i)
}

// shown returns the record of an id or, while it is being moved, of where it is; nil if there is none.
func (v *view) shown(id string) *pb.Instance {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.shownLocked(v.index.Get(id))
}

// shownLocked is what users see of an instance: while it is being moved, what it does where it is.
func (v *view) shownLocked(i *pb.Instance) *pb.Instance {
	if old := v.behind[i.GetInstanceId()]; old != nil && (provisional(i) || i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_STARTING) {
		return old
	}
	return i
}

// comeBackLocked puts back what a move stood in front of that came to nothing.
func (v *view) comeBackLocked(id string) {
	if old := v.behind[id]; old != nil && v.index.Get(id) == nil {
		delete(v.behind, id)
		v.putLocked(old)
	}
}

// outliveLocked makes a double the instance's record, once what ran with better right is gone: it was started, and given up
// again.
func (v *view) outliveLocked(gone *pb.Instance) {
	if len(v.doubles) == 0 || !fact.Live(gone.GetStatus()) || v.index.Get(gone.GetInstanceId()) != nil {
		return
	}
	for key, double := range v.doubles {
		if double.GetInstanceId() == gone.GetInstanceId() {
			delete(v.doubles, key)
			v.putLocked(double)
		}
	}
}

// holds says whether a record is still what is known of its instance, or of its node's part in it.
func (v *view) holds(i *pb.Instance) bool {
	now := v.get(i.GetInstanceId())
	return now != nil && now.GetNodeId() == i.GetNodeId() && now.GetGeneration() == i.GetGeneration() && fact.Live(now.GetStatus())
}

// release takes back the reservation of an instance on a node, unless a true record has replaced it. What
// it stood in front of is there again.
func (v *view) release(id, nodeID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := v.index.Get(id); i != nil && provisional(i) && i.GetNodeId() == nodeID {
		v.index.Remove(id, nodeID)
		v.comeBackLocked(id)
	}
}
