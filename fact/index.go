package fact

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Index holds at most one record per instance and finds it by id, name and node.
// It is not safe for concurrent use.
type Index struct {
	byID   map[string]*pb.Instance
	byName map[string]map[string]struct{} // name → ids
	byNode map[string]map[string]struct{} // node id → ids
	count  map[pb.InstanceStatus]int
	usage  map[string]Usage          // node id → what its live instances take
	spread map[string]map[string]int // name → node id → live instances
}

// Usage is what the live instances of a node take up.
type Usage struct {
	Instances int
	Memory    uint64 // the sum of their limits, in bytes
	CPU       uint64 // the sum of what they were promised, in millicores
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		byID:   map[string]*pb.Instance{},
		byName: map[string]map[string]struct{}{},
		byNode: map[string]map[string]struct{}{},
		count:  map[pb.InstanceStatus]int{},
		usage:  map[string]Usage{},
		spread: map[string]map[string]int{},
	}
}

// Put merges a record in and says whether the index changed.
func (x *Index) Put(i *pb.Instance) bool {
	old, known := x.byID[i.GetInstanceId()]
	if known {
		if old == i || Merge(old, i) == old {
			return false
		}
		x.unlink(old)
	}
	x.byID[i.GetInstanceId()] = i
	x.link(i)
	return true
}

// Remove forgets an instance, if the record held is of that node: a node can't speak for another.
func (x *Index) Remove(id, nodeID string) {
	if i, ok := x.byID[id]; ok && i.GetNodeId() == nodeID {
		x.unlink(i)
		delete(x.byID, id)
	}
}

// RemoveNode forgets the instances of a node and returns them.
func (x *Index) RemoveNode(nodeID string) []*pb.Instance {
	gone := x.OnNode(nodeID)
	for _, i := range gone {
		x.Remove(i.GetInstanceId(), nodeID)
	}
	return gone
}

// Get returns the record of an id, or nil.
func (x *Index) Get(id string) *pb.Instance { return x.byID[id] }

// Len is the number of records.
func (x *Index) Len() int { return len(x.byID) }

// All returns every record, in no order.
func (x *Index) All() []*pb.Instance {
	all := make([]*pb.Instance, 0, len(x.byID))
	for _, i := range x.byID {
		all = append(all, i)
	}
	return all
}

// Named returns the records of a name, in no order.
func (x *Index) Named(name string) []*pb.Instance { return x.collect(x.byName[name]) }

// OnNode returns the records of a node, in no order.
func (x *Index) OnNode(nodeID string) []*pb.Instance { return x.collect(x.byNode[nodeID]) }

// Usage returns what the live instances of a node take up.
func (x *Index) Usage(nodeID string) Usage { return x.usage[nodeID] }

// Spread returns how many live instances of a name each node has; nodes without any are left out.
func (x *Index) Spread(name string) map[string]int { return maps.Clone(x.spread[name]) }

// CountByStatus returns how many records have each status; statuses without any are left out.
func (x *Index) CountByStatus() map[pb.InstanceStatus]int {
	counts := make(map[pb.InstanceStatus]int, len(x.count))
	for s, n := range x.count {
		if n > 0 {
			counts[s] = n
		}
	}
	return counts
}

// NotFoundError says that a reference stands for no instance.
type NotFoundError struct{ Ref string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no instance has the id or name %q; see wasmatrix ps -a", e.Ref)
}

// AmbiguousError says that a reference stands for several instances where one was wanted.
type AmbiguousError struct {
	Ref   string
	Count int
	// Some of the ids it could mean.
	IDs []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q stands for %d instances (%s …); give one id, or more of it", e.Ref, e.Count, strings.Join(e.IDs, ", "))
}

// Resolve returns the one instance that a reference stands for: its id, a name that one instance has
// (a live one before ended ones), or a prefix of an id that no other id has.
// Errors are [*NotFoundError] and [*AmbiguousError].
func (x *Index) Resolve(ref string) (*pb.Instance, error) {
	if i := x.byID[ref]; i != nil {
		return i, nil
	}
	found := x.Named(ref)
	if live := liveOnly(found); len(live) > 0 {
		found = live
	}
	if len(found) == 0 {
		found = x.withPrefix(ref)
	}
	return one(ref, found)
}

// ResolveAll returns every instance that a reference stands for: one for an id or a prefix, all of
// that name for a name. Errors are those of [Index.Resolve].
func (x *Index) ResolveAll(ref string) ([]*pb.Instance, error) {
	if i := x.byID[ref]; i != nil {
		return []*pb.Instance{i}, nil
	}
	if named := x.Named(ref); len(named) > 0 {
		return named, nil
	}
	i, err := one(ref, x.withPrefix(ref))
	if err != nil {
		return nil, err
	}
	return []*pb.Instance{i}, nil
}

func one(ref string, found []*pb.Instance) (*pb.Instance, error) {
	switch len(found) {
	case 0:
		return nil, &NotFoundError{Ref: ref}
	case 1:
		return found[0], nil
	}
	ids := make([]string, 0, len(found))
	for _, i := range found {
		ids = append(ids, i.GetInstanceId())
	}
	slices.Sort(ids)
	return nil, &AmbiguousError{Ref: ref, Count: len(ids), IDs: ids[:min(3, len(ids))]}
}

// withPrefix scans: prefixes are for people at a terminal, not for hot paths.
func (x *Index) withPrefix(prefix string) []*pb.Instance {
	if len(prefix) < 4 { // a shorter one would make a typing slip stop something
		return nil
	}
	var found []*pb.Instance
	for id, i := range x.byID {
		if strings.HasPrefix(id, prefix) {
			found = append(found, i)
		}
	}
	return found
}

func liveOnly(all []*pb.Instance) []*pb.Instance {
	return slices.DeleteFunc(slices.Clone(all), func(i *pb.Instance) bool { return !Live(i.GetStatus()) })
}

func (x *Index) collect(ids map[string]struct{}) []*pb.Instance {
	found := make([]*pb.Instance, 0, len(ids))
	for id := range ids {
		found = append(found, x.byID[id])
	}
	return found
}

func (x *Index) link(i *pb.Instance) {
	link(x.byName, i.GetSpec().GetName(), i.GetInstanceId())
	link(x.byNode, i.GetNodeId(), i.GetInstanceId())
	x.count[i.GetStatus()]++
	x.charge(i, 1)
}

func (x *Index) unlink(i *pb.Instance) {
	unlink(x.byName, i.GetSpec().GetName(), i.GetInstanceId())
	unlink(x.byNode, i.GetNodeId(), i.GetInstanceId())
	x.count[i.GetStatus()]--
	x.charge(i, -1)
}

// charge adds a live instance to its node's account, or with n = -1 takes it off.
func (x *Index) charge(i *pb.Instance, n int) {
	if !Live(i.GetStatus()) {
		return
	}
	name, node := i.GetSpec().GetName(), i.GetNodeId()
	u := x.usage[node]
	u.Instances += n
	u.Memory += uint64(n) * i.GetSpec().GetMemoryLimitBytes() // wraps to a subtraction for -1
	u.CPU += uint64(n) * uint64(i.GetSpec().GetCpuMillicores())
	x.usage[node] = u
	if x.spread[name] == nil {
		x.spread[name] = map[string]int{}
	}
	x.spread[name][node] += n
	if x.spread[name][node] == 0 {
		delete(x.spread[name], node)
	}
	if len(x.spread[name]) == 0 {
		delete(x.spread, name)
	}
}

func link(m map[string]map[string]struct{}, key, id string) {
	ids, ok := m[key]
	if !ok {
		ids = map[string]struct{}{}
		m[key] = ids
	}
	ids[id] = struct{}{}
}

func unlink(m map[string]map[string]struct{}, key, id string) {
	delete(m[key], id)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}
