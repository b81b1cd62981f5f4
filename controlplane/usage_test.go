package controlplane

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/vitals"
)

func told(id string, generation uint64, cpu time.Duration, memory uint64) *pb.InstanceUsage {
	return &pb.InstanceUsage{InstanceId: id, Generation: generation, Usage: &pb.Usage{
		CpuTime: durationpb.New(cpu), Fuel: uint64(cpu), MemoryBytes: memory, MemoryPeakBytes: memory,
	}}
}

func TestUsageIsNoFact(t *testing.T) {
	s, _, _ := leads(t)
	s.view.replace("n1", position{"boot", 7}, []*pb.Instance{instance("i", "n1", 1, 1, running)})
	before, changed := s.view.get("i"), s.view.changed
	copied := proto.CloneOf(before)
	s.usages.hear([]*pb.InstanceUsage{told("i", 1, time.Second, 64)}, time.Now())
	page, _ := s.list(&pb.ListInstancesRequest{}, "")
	if page[0].GetUsage().GetFuel() != uint64(time.Second) || page[0].GetRevision() != 1 {
		t.Errorf("listed is %v", page[0])
	}
	if s.view.get("i") != before || !proto.Equal(before, copied) || s.view.position("n1") != (position{"boot", 7}) {
		t.Errorf("usage has changed what is known: %v", s.view.get("i"))
	}
	if at, all := s.view.copyOf("n1"); at.Seq != 7 || all[0] != before {
		t.Errorf("usage has changed what other voters are told: %v", all)
	}
	select {
	case <-changed:
		t.Error("somebody was woken")
	default:
	}
}

func TestSortByUseKnowsWhatWasToldSinceTheRecords(t *testing.T) {
	s, _, _ := leads(t)
	for n, id := range []string{"a", "b", "c"} {
		s.view.put(instance(id, "n1", 1, 1, running))
		s.usages.hear([]*pb.InstanceUsage{told(id, 1, []time.Duration{5 * time.Second, 9 * time.Second, time.Second}[n], []uint64{64, 1, 128}[n])}, time.Now())
	}
	for sort, want := range map[pb.InstanceSort]string{pb.InstanceSort_INSTANCE_SORT_CPU: "b", pb.InstanceSort_INSTANCE_SORT_MEMORY: "c"} {
		page, total := s.list(&pb.ListInstancesRequest{Sort: sort, Descending: true, Limit: 1}, "")
		if total != 3 || len(page) != 1 || page[0].GetInstanceId() != want {
			t.Errorf("first by %s: %v", sort, page)
		}
	}
}

func TestUseNowIsThatOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, i := newUsages(), instance("i", "n1", 1, 1, running)
		cpu := time.Duration(0)
		tell := func(used time.Duration) {
			cpu += used
			u.hear([]*pb.InstanceUsage{told("i", 1, cpu, 64)}, time.Now())
		}
		cores := func() float64 { return u.join(i).GetUsage().GetCpuUsedCores() }
		tell(time.Hour)
		if c := cores(); c != 0 {
			t.Errorf("of one figure: %v", c)
		}
		time.Sleep(vitals.Period)
		tell(2 * time.Second)
		if c := cores(); c != 0.4 {
			t.Errorf("of 2 s in 5 s: %v", c)
		}
		time.Sleep(time.Millisecond)
		tell(time.Millisecond) // a stream that begins anew tells at once
		if c := cores(); c != 0.4 {
			t.Errorf("of a millisecond more: %v", c)
		}
		time.Sleep(time.Hour) // it rested, and so nothing was told
		if c := cores(); c != 0 {
			t.Errorf("of one that rests: %v", c)
		}
		tell(time.Second)
		if c := cores(); c < 0.2 || c > 0.21 {
			t.Errorf("of a second after a rest: %v", c)
		}
		time.Sleep(vitals.Period)
		tell(time.Minute) // it came late
		if c := cores(); c != 1 {
			t.Errorf("of a minute in 5 s: %v", c)
		}
	})
}

func TestMovedInstanceTakesItsUsageAlong(t *testing.T) {
	u, now := newUsages(), time.Now()
	u.hear([]*pb.InstanceUsage{told("i", 1, 10*time.Second, 64)}, now)
	moved := instance("i", "n2", 2, 1, running)
	if got := u.join(moved).GetUsage(); got.GetFuel() != uint64(10*time.Second) || got.GetMemoryBytes() != 0 || got.GetMemoryPeakBytes() != 64 {
		t.Errorf("before the new node has told: %v", got)
	}
	u.hear([]*pb.InstanceUsage{told("i", 2, 11*time.Second, 32)}, now)
	u.hear([]*pb.InstanceUsage{told("i", 1, 12*time.Second, 64)}, now) // the old node, late
	if got := u.join(moved).GetUsage(); got.GetFuel() != uint64(11*time.Second) || got.GetMemoryBytes() != 32 {
		t.Errorf("after it: %v", got)
	}
}

func TestUsageIsForgottenWithTheRecord(t *testing.T) {
	s, _, _ := leads(t)
	s.view.replace("n1", position{"boot", 1}, []*pb.Instance{instance("i", "n1", 1, 1, running), instance("j", "n1", 1, 1, running)})
	s.usages.hear([]*pb.InstanceUsage{told("i", 1, time.Second, 1), told("j", 1, time.Second, 1), told("never-heard-of", 1, time.Second, 1)}, time.Now())
	s.view.advance("n1", 1, position{"boot", 2}, nil, []string{"j"})
	s.forgetUsages(true)
	if _, still := s.usages.newest["i"]; !still || len(s.usages.newest) != 1 {
		t.Errorf("kept: %v", s.usages.newest)
	}
	if s.forgetUsages(false); len(s.usages.newest) != 0 {
		t.Errorf("a node that hears nothing keeps %v", s.usages.newest)
	}
}

// BenchmarkUsages of 100,000 instances: what they take of memory, and what hearing and forgetting takes of time.
func BenchmarkUsages(b *testing.B) {
	const many = 100_000
	all := make([]*pb.InstanceUsage, many)
	for n := range all {
		all[n] = told(fmt.Sprintf("0190a000-0000-7000-8000-%012d", n), 1, time.Duration(n), uint64(n))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	u := newUsages()
	u.hear(all, time.Now())
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("hear", func(b *testing.B) {
		for b.Loop() {
			u.hear(all, time.Now())
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/instance")
	})
	b.Run("forget", func(b *testing.B) {
		for b.Loop() {
			u.keep(func(id string) bool { return id != "" })
		}
	})
}
