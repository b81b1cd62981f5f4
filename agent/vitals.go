package agent

import (
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Process is what the process of an agent uses.
type Process struct {
	CPU      time.Duration // the time of processors, so far
	Resident uint64        // bytes in memory
}

// counts is what an agent counts from its start.
type counts struct {
	began           time.Time
	cores           int // before any are added for the sake of guests: docs/decisions/005-spare-processors.md
	starts, crashes atomic.Uint64
}

// vitals returns what the node carries and how it fares. It asks the operating system, so it is for reports that come every few
// seconds, and not for those of each change.
func (a *Agent) vitals() *pb.NodeLoad {
	m := a.facts.load().message()
	m.UpFor = durationpb.New(time.Since(a.counts.began))
	m.CpuCores = uint32(a.counts.cores)
	if a.cfg.Process != nil {
		p := a.cfg.Process()
		m.CpuTime, m.ResidentBytes = durationpb.New(p.CPU), p.Resident
	}
	m.Crashes, m.Starts = a.counts.crashes.Load(), a.counts.starts.Load()
	m.Calls = a.calls.counts.Message()
	guests := a.engine.Totals()
	m.GuestCpuTime, m.GuestMemoryBytes = durationpb.New(guests.CPU), guests.Memory
	return m
}
