package fact

import pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"

// WithUsage returns a record with what is known beside it of what its instance has used; the record itself, where that is nothing
// new. Totals only grow, so the larger is the newer. What an instance has and does now it does only while it runs.
func WithUsage(i *pb.Instance, known *pb.Usage) *pb.Instance {
	if known == nil {
		return i
	}
	had := i.GetUsage()
	now := &pb.Usage{
		CpuTime: had.GetCpuTime(), Fuel: max(had.GetFuel(), known.GetFuel()),
		MemoryBytes: had.GetMemoryBytes(), MemoryPeakBytes: max(had.GetMemoryPeakBytes(), known.GetMemoryPeakBytes()),
	}
	if known.GetCpuTime().AsDuration() >= had.GetCpuTime().AsDuration() {
		now.CpuTime = known.GetCpuTime()
		if i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_RUNNING {
			now.MemoryBytes, now.CpuUsedCores = known.GetMemoryBytes(), known.GetCpuUsedCores()
		}
	}
	if sameUsage(now, had) {
		return i
	}
	return &pb.Instance{
		InstanceId: i.InstanceId,
		Spec:       i.Spec,
		NodeId:     i.NodeId,
		NodeName:   i.NodeName,
		Status:     i.Status,
		Durability: i.Durability,
		CreatedAt:  i.CreatedAt,
		PlacedAt:   i.PlacedAt,
		StartedAt:  i.StartedAt,
		FinishedAt: i.FinishedAt,
		RestartAt:  i.RestartAt,
		Restarts:   i.Restarts,
		Generation: i.Generation,
		ExitCode:   i.ExitCode,
		LastError:  i.LastError,
		Revision:   i.Revision,
		NodeEpoch:  i.NodeEpoch,
		Grants:     i.Grants,
		Usage:      now,
	}
}

func sameUsage(a, b *pb.Usage) bool {
	return a.GetCpuTime().AsDuration() == b.GetCpuTime().AsDuration() && a.GetFuel() == b.GetFuel() &&
		a.GetMemoryBytes() == b.GetMemoryBytes() && a.GetMemoryPeakBytes() == b.GetMemoryPeakBytes() && a.GetCpuUsedCores() == b.GetCpuUsedCores()
}
