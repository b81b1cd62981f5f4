package controlplane

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/vitals"
)

const (
	// askUsageTimeout is how long the agent of one instance may take to say what that has used up to this moment. Else the
	// answer is what it told last, some seconds ago.
	askUsageTimeout = 300 * time.Millisecond
	// shortestUse is the least time between two figures that says how much of a processor is used.
	shortestUse = time.Second
	// usedLately is for how long a figure says what its instance uses now: that of one that rests is not told again.
	usedLately = 2 * vitals.Period
)

// usages is what instances have used by what their agents told last, in between their records. It is no fact: it makes no
// revision and no event, nobody is woken for it, and what is told of it late or not at all is told better the next time.
type usages struct {
	mu sync.Mutex // guards newest

	newest map[string]used // by instance id
}

// used is what is known of one instance. It is kept small, as there may be a hundred thousand.
type used struct {
	generation         uint64
	cpu                time.Duration
	fuel, memory, peak uint64

	// From here on is counted how much of a processor it uses; that is how much it was.
	counted time.Time
	before  time.Duration
	cores   float64
}

func newUsages() *usages { return &usages{newest: map[string]used{}} }

// hear takes what an agent told.
func (u *usages) hear(told []*pb.InstanceUsage, now time.Time) {
	if len(told) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range told {
		was, known := u.newest[t.GetInstanceId()]
		if t.GetGeneration() < was.generation { // it has moved since
			continue
		}
		is := was
		is.generation, is.memory = t.GetGeneration(), t.GetUsage().GetMemoryBytes()
		is.cpu = max(was.cpu, t.GetUsage().GetCpuTime().AsDuration())
		is.fuel = max(was.fuel, t.GetUsage().GetFuel())
		is.peak = max(was.peak, t.GetUsage().GetMemoryPeakBytes())
		is.count(known && was.generation == is.generation, now)
		u.newest[t.GetInstanceId()] = is
	}
}

// count notes how much of a processor is used. Where nothing was told for longer than a period there was nothing to tell,
// or the way was cut; a guest uses one at the most.
func (u *used) count(goesOn bool, now time.Time) {
	if !goesOn {
		u.counted, u.before, u.cores = now, u.cpu, 0
		return
	}
	if took := min(now.Sub(u.counted), vitals.Period); took >= shortestUse {
		u.cores = min((u.cpu-u.before).Seconds()/took.Seconds(), 1)
		u.counted, u.before = now, u.cpu
	}
}

// of returns what is known of a record's instance; nil for nothing.
func (u *usages) of(i *pb.Instance, now time.Time) *pb.Usage {
	u.mu.Lock()
	is, known := u.newest[i.GetInstanceId()]
	u.mu.Unlock()
	if !known {
		return nil
	}
	usage := &pb.Usage{CpuTime: durationpb.New(is.cpu), Fuel: is.fuel, MemoryPeakBytes: is.peak}
	if is.generation == i.GetGeneration() {
		usage.MemoryBytes = is.memory
		if now.Sub(is.counted) < usedLately {
			usage.CpuUsedCores = is.cores
		}
	}
	return usage
}

// join returns a record with what its instance is known to have used.
func (u *usages) join(i *pb.Instance) *pb.Instance { return fact.WithUsage(i, u.of(i, time.Now())) }

// joinAll puts such records in the place of those that are given.
func (u *usages) joinAll(all []*pb.Instance) {
	now := time.Now()
	for n, i := range all {
		all[n] = fact.WithUsage(i, u.of(i, now))
	}
}

// all returns what is known of some instances, as agents tell it.
func (u *usages) all(instances []*pb.Instance) (known []*pb.InstanceUsage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, i := range instances {
		if is, ok := u.newest[i.GetInstanceId()]; ok {
			known = append(known, &pb.InstanceUsage{InstanceId: i.GetInstanceId(), Generation: is.generation, Usage: &pb.Usage{
				CpuTime: durationpb.New(is.cpu), Fuel: is.fuel, MemoryBytes: is.memory, MemoryPeakBytes: is.peak,
			}})
		}
	}
	return known
}

// keep forgets the instances that are not known any more.
func (u *usages) keep(known func(id string) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id := range u.newest {
		if !known(id) {
			delete(u.newest, id)
		}
	}
}

// usedNow returns a record with what its instance has used up to this moment, if it runs and its agent answers at once; else
// with what the agent told last.
func (s *Server) usedNow(ctx context.Context, i *pb.Instance) *pb.Instance {
	i = s.usages.join(i)
	if i.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_RUNNING || !s.reporters.reporting(i.GetNodeId()) {
		return i
	}
	m, ok := s.member(i.GetNodeId())
	if !ok || !reachable(m) {
		return i
	}
	ctx, cancel := context.WithTimeout(ctx, askUsageTimeout)
	defer cancel()
	agent, err := s.agent(m)
	if err != nil {
		return i
	}
	resp, err := agent.QueryInstance(ctx, &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: i.GetInstanceId()})
	if err != nil {
		s.cfg.Log.DebugContext(ctx, "an agent did not say at once what an instance uses; it told some seconds ago", "instance_id", i.GetInstanceId(), "peer", m.Name, "err", err)
		return i
	}
	now := resp.GetInstance()
	if now.GetGeneration() != i.GetGeneration() {
		return i
	}
	if now.GetUsage() != nil {
		now.Usage.CpuUsedCores = i.GetUsage().GetCpuUsedCores()
	}
	return fact.WithUsage(i, now.GetUsage())
}

// forgetUsages forgets those of instances that are not known any more; all of them, where this node is no voter and hears nothing.
func (s *Server) forgetUsages(voter bool) {
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	s.usages.keep(func(id string) bool { return voter && s.view.index.Get(id) != nil })
}
