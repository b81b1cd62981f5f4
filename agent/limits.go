package agent

import (
	"context"
	"fmt"
	"strconv"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// Limits are what an agent takes on at the most: live instances, the sum of their memory limits in bytes, and the sum of what they
// were promised of the CPU in millicores. For the sums, 0 is no bound.
type Limits struct {
	Instances int
	Memory    uint64
	CPU       int
}

// SetLimits changes what the agent takes on. What runs already goes on.
func (a *Agent) SetLimits(l Limits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cfg.MaxInstances, a.cfg.MaxMemory, a.cfg.MaxCPU = l.Instances, l.Memory, l.CPU
}

// limits returns what the agent takes on now.
func (a *Agent) limits() Limits {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Limits{a.cfg.MaxInstances, a.cfg.MaxMemory, a.cfg.MaxCPU}
}

// roomLocked says why there is no room for one more instance; nil if there is. An instance that is
// replaced makes its own room.
func (a *Agent) roomLocked(spec *pb.InstanceSpec, replaced *instance) *rpc.Error {
	now := a.facts.load()
	if replaced != nil {
		now.instances--
		now.memory -= replaced.rec.Load().GetSpec().GetMemoryLimitBytes()
		now.cpu -= uint64(replaced.rec.Load().GetSpec().GetCpuMillicores())
	}
	if now.instances >= a.cfg.MaxInstances {
		return rpc.Errorf(rpc.ResourceExhausted, "node %s runs %d instances and takes no more than %d; see --max-instances",
			a.cfg.NodeName, now.instances, a.cfg.MaxInstances).
			With("instances", strconv.Itoa(now.instances)).With("max_instances", strconv.Itoa(a.cfg.MaxInstances))
	}
	need := spec.GetMemoryLimitBytes()
	if a.cfg.MaxMemory > 0 && (need > a.cfg.MaxMemory || now.memory > a.cfg.MaxMemory-need) {
		return rpc.Errorf(rpc.ResourceExhausted, "node %s has promised %d of %d bytes of memory to instances, and one of %d does not fit; see --max-memory",
			a.cfg.NodeName, now.memory, a.cfg.MaxMemory, need).
			With("committed_memory", strconv.FormatUint(now.memory, 10)).With("max_memory", strconv.FormatUint(a.cfg.MaxMemory, 10))
	}
	if need, most := uint64(spec.GetCpuMillicores()), uint64(a.cfg.MaxCPU); need > 0 && most > 0 && now.cpu+need > most {
		return rpc.Errorf(rpc.ResourceExhausted, "node %s has promised %d of %d millicores of CPU to instances, and one of %d does not fit; see --max-cpu",
			a.cfg.NodeName, now.cpu, most, need).
			With("committed_cpu", strconv.FormatUint(now.cpu, 10)).With("max_cpu", strconv.FormatUint(most, 10))
	}
	return nil
}

// bounded returns the context of a run that began at that time, which ends once the run has taken as long as its spec allows.
func bounded(ctx context.Context, spec *pb.InstanceSpec, began time.Time) (context.Context, context.CancelFunc) {
	most := spec.GetRunTimeout().AsDuration()
	if most <= 0 {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, began.Add(most), rpc.Errorf(rpc.Timeout, "it ran longer than %s (--run-timeout)", most))
}

// fuelLeft returns what is left of an instance's budget of fuel, 0 where it has none, and false where nothing is left.
func (i *instance) fuelLeft() (left uint64, some bool) {
	budget, used := i.rec.Load().GetSpec().GetFuel(), i.usage().GetFuel()
	if budget == 0 {
		return 0, true
	}
	return budget - min(used, budget), used < budget
}

// outOfFuel is the end of an instance whose budget is used up.
func outOfFuel(spec *pb.InstanceSpec) end {
	return end{why: fmt.Sprintf("its fuel is used up (--fuel %d)", spec.GetFuel()), spent: true}
}

// noteFuelEvery is how often the journal is told what instances with a budget have used of it.
const noteFuelEvery = time.Second

// noteFuel has the journal know what is left of budgets, so that a node that went down does not give anew what was used before:
// but for the last second's, and a hundredth of the budget at the most.
func (a *Agent) noteFuel(ctx context.Context) error {
	ticker := time.NewTicker(noteFuelEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			for _, i := range a.budgeted() {
				a.noteUsage(i)
			}
		}
	}
}

// budgeted returns the live instances that have a budget of fuel.
func (a *Agent) budgeted() []*instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*instance
	for _, i := range a.live {
		if i.rec.Load().GetSpec().GetFuel() > 0 {
			all = append(all, i)
		}
	}
	return all
}

// noteUsage puts what an instance has used into the journal, if it runs and has used enough since. That makes no new record for
// anybody else.
func (a *Agent) noteUsage(i *instance) {
	i.writing.Lock()
	defer i.writing.Unlock()
	rec, used := i.rec.Load(), i.usage()
	if rec.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_RUNNING || used.GetFuel() < i.noted+max(1, rec.GetSpec().GetFuel()/100) {
		return
	}
	i.noted = used.GetFuel()
	rec = revise(rec)
	rec.Usage, rec.Revision = used, rec.GetRevision()-1
	a.journal.Put(rec)
}
