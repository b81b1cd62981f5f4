package api

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Instance is one instance.
type Instance struct {
	InstanceID    string        `json:"instance_id"`
	Name          string        `json:"name"`
	NodeID        string        `json:"node_id"`
	NodeName      string        `json:"node_name"`
	ModuleHash    string        `json:"module_hash"`
	Status        string        `json:"status"`
	RestartPolicy RestartPolicy `json:"restart_policy"`
	Capabilities  []Capability  `json:"capabilities"`
	Durability    string        `json:"durability"`
	CreatedAt     *time.Time    `json:"created_at"`
	StartedAt     *time.Time    `json:"started_at"`
	FinishedAt    *time.Time    `json:"finished_at"`
	Restarts      uint32        `json:"restarts"`
	Generation    uint64        `json:"generation"`
	ExitCode      *int32        `json:"exit_code"`
	LastError     string        `json:"last_error"`

	// What it was started with, beside the module. Its environment is left out: people keep secrets there.
	Args             []string          `json:"args"`
	MemoryLimitBytes uint64            `json:"memory_limit_bytes"`
	Constraints      map[string]string `json:"constraints"`
	// What becomes of it where no leader is heard: "keep" or "stop".
	OnPartition string `json:"on_partition"`
	// What it was promised of the CPU, in thousandths of a core, and whether that is also the most it gets.
	CPUMillicores uint32 `json:"cpu_millicores"`
	CPUHard       bool   `json:"cpu_hard"`
	// How much it may compute in all, in units of metering; 0 for no limit.
	Fuel uint64 `json:"fuel"`
	// How long each run may take; 0 for no limit.
	RunTimeoutSeconds float64 `json:"run_timeout_seconds"`
	// When the next restart is due; only while restarting.
	RestartAt *time.Time `json:"restart_at"`
	// What it has used, over all its restarts and nodes.
	Usage Usage `json:"usage"`
}

// Usage is what one instance has used. Of one that runs it may be some seconds old.
type Usage struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	// Processors that it used on average over the last seconds: at most one.
	CPUUsedCores float64 `json:"cpu_used_cores"`
	// Units of metering: about an instruction each.
	Fuel uint64 `json:"fuel"`
	// Its linear memory now, and the most that it had.
	MemoryBytes     uint64 `json:"memory_bytes"`
	MemoryPeakBytes uint64 `json:"memory_peak_bytes"`
}

// RestartPolicy says when an instance that ended is started again.
type RestartPolicy struct {
	PolicyType     string  `json:"policy_type"`
	MaxRetries     uint32  `json:"max_retries"`
	BackoffSeconds float64 `json:"backoff_seconds"`
}

// Capability is one grant of an instance.
type Capability struct {
	CapabilityID string   `json:"capability_id"`
	ProviderType string   `json:"provider_type"`
	Permissions  []string `json:"permissions"`
}

// FromInstance returns the JSON shape of an instance.
func FromInstance(i *pb.Instance) Instance {
	spec := i.GetSpec()
	policy := spec.GetRestartPolicy()
	return Instance{
		InstanceID: i.GetInstanceId(),
		Name:       spec.GetName(),
		NodeID:     i.GetNodeId(),
		NodeName:   i.GetNodeName(),
		ModuleHash: spec.GetModuleHash(),
		Status:     StatusName(i.GetStatus()),
		RestartPolicy: RestartPolicy{
			PolicyType:     word(policy.GetPolicyType().String(), "POLICY_TYPE_"),
			MaxRetries:     policy.GetMaxRetries(),
			BackoffSeconds: policy.GetBackoff().AsDuration().Seconds(),
		},
		Capabilities: FromGrants(i.GetGrants()),
		Durability:   word(i.GetDurability().String(), "DURABILITY_"),
		CreatedAt:    timeOf(i.GetCreatedAt()),
		StartedAt:    timeOf(i.GetStartedAt()),
		FinishedAt:   timeOf(i.GetFinishedAt()),
		Restarts:     i.GetRestarts(),
		Generation:   i.GetGeneration(),
		ExitCode:     i.ExitCode,
		LastError:    i.GetLastError(),

		Args:              append([]string{}, spec.GetArgs()...),
		MemoryLimitBytes:  spec.GetMemoryLimitBytes(),
		Constraints:       notNil(spec.GetConstraints()),
		CPUMillicores:     spec.GetCpuMillicores(),
		CPUHard:           spec.GetCpuHard(),
		Fuel:              spec.GetFuel(),
		RunTimeoutSeconds: spec.GetRunTimeout().AsDuration().Seconds(),
		OnPartition:       onPartition(spec.GetOnPartition()),
		RestartAt:         timeOf(i.GetRestartAt()),
		Usage:             fromUsage(i.GetUsage()),
	}
}

func fromUsage(u *pb.Usage) Usage {
	return Usage{
		CPUSeconds: u.GetCpuTime().AsDuration().Seconds(), CPUUsedCores: u.GetCpuUsedCores(), Fuel: u.GetFuel(),
		MemoryBytes: u.GetMemoryBytes(), MemoryPeakBytes: u.GetMemoryPeakBytes(),
	}
}

// FromInstances returns the JSON shapes of instances, in their order; never nil.
func FromInstances(all []*pb.Instance) []Instance {
	shapes := make([]Instance, 0, len(all))
	for _, i := range all {
		shapes = append(shapes, FromInstance(i))
	}
	return shapes
}

// StatusName returns the word for a status: "running", "stopped" and so on.
func StatusName(s pb.InstanceStatus) string { return word(s.String(), "INSTANCE_STATUS_") }

// onPartition is "keep" also for what was started before there was a choice.
func onPartition(o pb.OnPartition) string {
	if o == pb.OnPartition_ON_PARTITION_STOP {
		return "stop"
	}
	return "keep"
}

// word turns the name of an enum's value into the word that users see.
func word(value, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value, prefix))
}

// timeOf returns nil for a time that is not set, and for one that RFC 3339 cannot write: a node whose
// clock is mad must not keep a whole list from being printed.
func timeOf(t *timestamppb.Timestamp) *time.Time {
	if !t.IsValid() {
		return nil
	}
	at := t.AsTime()
	return &at
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
