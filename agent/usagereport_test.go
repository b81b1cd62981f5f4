package agent

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// user is an instance that has used something, of which its record knows.
func user(t *testing.T, id string, fuel uint64, used *pb.Usage) *instance {
	t.Helper()
	return newInstance(t.Context(), &pb.Instance{InstanceId: id, Generation: 3, Usage: used, Spec: &pb.InstanceSpec{Fuel: fuel}}, &order{}, nil)
}

// uses has it have used so much in all.
func (i *instance) uses(cpu time.Duration, fuel, memory uint64) {
	i.spent.mu.Lock()
	defer i.spent.mu.Unlock()
	i.spent.ended = &pb.Usage{CpuTime: durationpb.New(cpu), Fuel: fuel, MemoryBytes: memory}
}

func TestVoterIsToldWhatItCanSeeOfUsageAndNoMore(t *testing.T) {
	i := user(t, "i", 0, &pb.Usage{CpuTime: durationpb.New(time.Second), Fuel: 5, MemoryBytes: 64})
	budgeted := user(t, "budgeted", 1000, nil)
	live := []*instance{i, budgeted}
	told := toldUsages{}
	step := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, n := range told.news(live) {
			got = append(got, fmt.Sprintf("%s/%d:%d", n.GetInstanceId(), n.GetGeneration(), n.GetUsage().GetFuel()))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: told of %v, want %v", what, got, want)
		}
	}
	step("what its record says")
	i.uses(time.Second+time.Millisecond, 6, 64)
	step("too little to see")
	i.uses(time.Second+leastUse, 7, 64)
	step("what one can see", "i/3:7")
	step("the same again")
	i.uses(time.Second+leastUse, 8, 128)
	step("memory", "i/3:8")
	budgeted.uses(0, 1, 0)
	step("any fuel of a budget", "budgeted/3:1")
	i.uses(time.Hour, 9, 128)
	close(i.done)
	live = live[1:]
	step("one that has ended")
	if len(told) != 1 {
		t.Errorf("of %d live instances, %d are remembered", len(live), len(told))
	}
	again := toldUsages{}
	if n := len(again.news(live)); n != 1 {
		t.Errorf("another stream is told of %d instances", n)
	}
}

func TestManyUsagesComeInSeveralMessages(t *testing.T) {
	s := &session{nodeID: "n", bootID: "b", most: maxReportRecords, told: 9}
	msgs := s.heartbeat(&pb.NodeLoad{Instances: 1}, make([]*pb.InstanceUsage, 2*maxReportRecords+1))
	if len(msgs) != 3 || len(msgs[2].GetUsages()) != 1 || msgs[0].GetLoad() == nil || msgs[1].GetLoad() != nil {
		t.Fatalf("%d messages", len(msgs))
	}
	for _, m := range msgs {
		if m.GetAfterSeq() != 9 || m.GetSeq() != 9 || m.GetBootId() != "b" {
			t.Errorf("a message is of %d to %d of %q", m.GetAfterSeq(), m.GetSeq(), m.GetBootId())
		}
	}
	if msgs := s.heartbeat(nil, nil); len(msgs) != 1 {
		t.Errorf("%d messages of nothing", len(msgs))
	}
}

// BenchmarkUsageNews of 10,000 live instances, all of which compute: what a heartbeat adds.
func BenchmarkUsageNews(b *testing.B) {
	live := make([]*instance, 10_000)
	for n := range live {
		live[n] = newInstance(b.Context(), &pb.Instance{InstanceId: fmt.Sprint(n)}, &order{}, nil)
	}
	told, cpu := toldUsages{}, time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		cpu += time.Second
		for _, i := range live {
			i.uses(cpu, 1, 1)
		}
		b.StartTimer()
		if len(told.news(live)) != len(live) {
			b.Fatal("not all were told")
		}
	}
}
