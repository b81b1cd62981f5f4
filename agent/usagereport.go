package agent

import (
	"maps"
	"slices"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// leastUse is how much of a processor's time an instance must have used since a voter was told of it, to be told again: what one
// sees of it. Within a heartbeat, a processor can be used so by a few hundred instances and no more, however many there are.
const leastUse = 10 * time.Millisecond

// toldUsages is what a voter was told on one stream of what live instances have used. One goroutine uses it.
type toldUsages map[*instance]toldUsage

type toldUsage struct {
	cpu          time.Duration
	fuel, memory uint64
}

// news returns what there is to tell, and takes it for told. Of an instance of which nothing was told yet the voter knows what its
// record says.
func (t toldUsages) news(live []*instance) (news []*pb.InstanceUsage) {
	for i := range t {
		select {
		case <-i.done: // its record has it all
			delete(t, i)
		default:
		}
	}
	for _, i := range live {
		rec, usage := i.rec.Load(), i.usage()
		was, known := t[i]
		if !known {
			was = toldOf(rec.GetUsage())
		}
		now := toldOf(usage)
		if now.cpu-was.cpu < leastUse && now.memory == was.memory && (now.fuel == was.fuel || rec.GetSpec().GetFuel() == 0) {
			continue
		}
		t[i] = now
		news = append(news, &pb.InstanceUsage{InstanceId: i.id, Generation: i.generation, Usage: usage})
	}
	return news
}

func toldOf(u *pb.Usage) toldUsage {
	return toldUsage{cpu: u.GetCpuTime().AsDuration(), fuel: u.GetFuel(), memory: u.GetMemoryBytes()}
}

// running returns the live instances.
func (a *Agent) running() []*instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.live))
}

// usagesOf returns what those of some records have used up to this moment that are live.
func (a *Agent) usagesOf(records []*pb.Instance) (usages []*pb.InstanceUsage) {
	a.mu.Lock()
	var live []*instance
	for _, rec := range records {
		if i := a.live[rec.GetInstanceId()]; i != nil {
			live = append(live, i)
		}
	}
	a.mu.Unlock()
	for _, i := range live {
		if usage := i.usage(); usage != nil {
			usages = append(usages, &pb.InstanceUsage{InstanceId: i.id, Generation: i.generation, Usage: usage})
		}
	}
	return usages
}
