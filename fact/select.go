package fact

import (
	"cmp"
	"slices"
	"strings"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Select returns the page of some records that a request asks for, and how many match on all pages. It reorders what it is
// given. Which name and node are asked for is the caller's to judge: who has an index need not look at all records, and only
// the metadata knows which node a name stands for.
func Select(all []*pb.Instance, req *pb.ListInstancesRequest) (page []*pb.Instance, total int) {
	matches := matcher(req)
	found := slices.DeleteFunc(all, func(i *pb.Instance) bool { return !matches(i) })
	total = len(found)
	from := min(int(req.GetOffset()), total)
	to := total
	if limit := int(req.GetLimit()); limit > 0 {
		to = min(from+limit, total)
	}
	return least(found, to, order(req))[from:], total
}

// matcher says which records a request asks for, by status and text.
func matcher(req *pb.ListInstancesRequest) func(*pb.Instance) bool {
	status := func(s pb.InstanceStatus) bool { return req.GetAll() || Live(s) }
	if some := req.GetStatuses(); len(some) > 0 {
		status = func(s pb.InstanceStatus) bool { return slices.Contains(some, s) }
	}
	part := strings.ToLower(req.GetFilter())
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), part) }
	return func(i *pb.Instance) bool {
		if !status(i.GetStatus()) {
			return false
		}
		return part == "" || has(i.GetSpec().GetName()) || has(i.GetInstanceId()) || has(i.GetNodeName()) ||
			has(i.GetSpec().GetModuleHash()) || has(i.GetLastError())
	}
}

// order compares as a request wants it. It is total: no two records have one id.
func order(req *pb.ListInstancesRequest) func(a, b *pb.Instance) int {
	by := comparison(req.GetSort())
	return func(a, b *pb.Instance) int {
		c := by(a, b)
		if req.GetDescending() {
			c = -c
		}
		if c == 0 {
			c = strings.Compare(a.GetInstanceId(), b.GetInstanceId())
		}
		return c
	}
}

func comparison(key pb.InstanceSort) func(a, b *pb.Instance) int {
	switch key {
	case pb.InstanceSort_INSTANCE_SORT_NAME:
		return func(a, b *pb.Instance) int { return strings.Compare(a.GetSpec().GetName(), b.GetSpec().GetName()) }
	case pb.InstanceSort_INSTANCE_SORT_STATUS:
		return func(a, b *pb.Instance) int { return cmp.Compare(a.GetStatus(), b.GetStatus()) }
	case pb.InstanceSort_INSTANCE_SORT_NODE:
		return func(a, b *pb.Instance) int { return strings.Compare(a.GetNodeName(), b.GetNodeName()) }
	case pb.InstanceSort_INSTANCE_SORT_STARTED:
		return func(a, b *pb.Instance) int { return compareTimes(a.GetStartedAt(), b.GetStartedAt()) }
	case pb.InstanceSort_INSTANCE_SORT_RESTARTS:
		return func(a, b *pb.Instance) int { return cmp.Compare(a.GetRestarts(), b.GetRestarts()) }
	case pb.InstanceSort_INSTANCE_SORT_MEMORY:
		return func(a, b *pb.Instance) int {
			return cmp.Or(cmp.Compare(a.GetUsage().GetMemoryBytes(), b.GetUsage().GetMemoryBytes()),
				cmp.Compare(a.GetSpec().GetMemoryLimitBytes(), b.GetSpec().GetMemoryLimitBytes()))
		}
	case pb.InstanceSort_INSTANCE_SORT_CPU:
		return func(a, b *pb.Instance) int {
			return cmp.Or(cmp.Compare(a.GetUsage().GetCpuUsedCores(), b.GetUsage().GetCpuUsedCores()),
				cmp.Compare(a.GetUsage().GetCpuTime().AsDuration(), b.GetUsage().GetCpuTime().AsDuration()))
		}
	case pb.InstanceSort_INSTANCE_SORT_MODULE:
		return func(a, b *pb.Instance) int {
			return strings.Compare(a.GetSpec().GetModuleHash(), b.GetSpec().GetModuleHash())
		}
	default: // also one of a later version
		return func(a, b *pb.Instance) int { return compareTimes(a.GetCreatedAt(), b.GetCreatedAt()) }
	}
}

// fewPerMany is how many times more records there have to be than are wanted for it to be quicker not to sort all.
const fewPerMany = 16

// least returns the n least, in order.
func least(all []*pb.Instance, n int, compare func(a, b *pb.Instance) int) []*pb.Instance {
	if n*fewPerMany > len(all) {
		slices.SortFunc(all, compare)
		return all[:n]
	}
	few := make([]*pb.Instance, 0, n+1)
	for _, i := range all {
		if n == 0 || len(few) == n && compare(i, few[n-1]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(few, i, compare)
		few = slices.Insert(few, at, i)
		few = few[:min(n, len(few))]
	}
	return few
}
