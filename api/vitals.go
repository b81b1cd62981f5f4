package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Vitals is how a node fares.
type Vitals struct {
	// Processors that its process uses, on average over the last seconds, and how many there are.
	CPUUsedCores  float64 `json:"cpu_used_cores"`
	CPUCores      uint32  `json:"cpu_cores"`
	ResidentBytes uint64  `json:"resident_bytes"`
	// How long its agent has run, and how often guests began to run and crashed since.
	UpSeconds float64 `json:"up_seconds"`
	Starts    uint64  `json:"starts"`
	Crashes   uint64  `json:"crashes"`
	// Processors that its guests use, what linear memory they have, and for how long they have computed since the agent began.
	GuestCPUUsedCores float64 `json:"guest_cpu_used_cores"`
	GuestMemoryBytes  uint64  `json:"guest_memory_bytes"`
	GuestCPUSeconds   float64 `json:"guest_cpu_seconds"`
}

func fromVitals(v *pb.NodeVitals) *Vitals {
	if v == nil {
		return nil
	}
	return &Vitals{
		CPUUsedCores: v.GetCpuUsedCores(), CPUCores: v.GetCpuCores(), ResidentBytes: v.GetResidentBytes(),
		UpSeconds: v.GetUpFor().AsDuration().Seconds(), Starts: v.GetStarts(), Crashes: v.GetCrashes(),
		GuestCPUUsedCores: v.GetGuestCpuUsedCores(), GuestMemoryBytes: v.GetGuestMemoryBytes(), GuestCPUSeconds: v.GetGuestCpuTime().AsDuration().Seconds(),
	}
}

// CallRates is how fast calls of guests to providers came, and how fast they were served.
type CallRates struct {
	CallsPerSecond  float64 `json:"calls_per_second"`
	ErrorsPerSecond float64 `json:"errors_per_second"`
	// Half of them, and 99 of 100, took no longer than this; null where there were none.
	LatencyP50Seconds *float64 `json:"latency_p50_seconds"`
	LatencyP99Seconds *float64 `json:"latency_p99_seconds"`
}

func fromCallRates(r *pb.CallRates) CallRates {
	return CallRates{
		CallsPerSecond: r.GetCallsPerSecond(), ErrorsPerSecond: r.GetErrorsPerSecond(),
		LatencyP50Seconds: seconds(r.GetLatencyP50()), LatencyP99Seconds: seconds(r.GetLatencyP99()),
	}
}

func seconds(d *durationpb.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.AsDuration().Seconds()
	return &s
}

// History is how the cluster fared lately.
type History struct {
	PeriodSeconds float64 `json:"period_seconds"`
	WindowSeconds float64 `json:"window_seconds"`
	// Since when the leader has gathered samples.
	Since *time.Time `json:"since"`
	// The oldest first.
	Samples []Sample `json:"samples"`
}

// Sample is how the cluster fared for a few seconds.
type Sample struct {
	// Its end, and how long it is.
	Time        *time.Time `json:"time"`
	SpanSeconds float64    `json:"span_seconds"`
	// How many instances had each status at its end.
	Instances        map[string]uint32 `json:"instances"`
	StartsPerSecond  float64           `json:"starts_per_second"`
	CrashesPerSecond float64           `json:"crashes_per_second"`
	// Of all providers together.
	Calls CallRates `json:"calls"`
	// Processors that guests of all nodes used.
	GuestCPUUsedCores float64 `json:"guest_cpu_used_cores"`
}

// FromHistory returns the JSON shape of a history.
func FromHistory(h *pb.GetHistoryResponse) History {
	shape := History{
		PeriodSeconds: h.GetPeriod().AsDuration().Seconds(), WindowSeconds: h.GetWindow().AsDuration().Seconds(), Since: timeOf(h.GetSince()),
		Samples: make([]Sample, 0, len(h.GetSamples())),
	}
	for _, s := range h.GetSamples() {
		instances := s.GetInstances()
		if instances == nil {
			instances = map[string]uint32{}
		}
		shape.Samples = append(shape.Samples, Sample{
			Time: timeOf(s.GetTime()), SpanSeconds: s.GetSpan().AsDuration().Seconds(), Instances: instances,
			StartsPerSecond: s.GetStartsPerSecond(), CrashesPerSecond: s.GetCrashesPerSecond(), Calls: fromCallRates(s.GetCalls()),
			GuestCPUUsedCores: s.GetGuestCpuUsedCores(),
		})
	}
	return shape
}
