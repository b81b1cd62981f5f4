package fact

import (
	"bytes"
	"cmp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Live says whether an instance of this status runs or is going to: it takes up a place on its node.
func Live(s pb.InstanceStatus) bool {
	switch s {
	case pb.InstanceStatus_INSTANCE_STATUS_STARTING,
		pb.InstanceStatus_INSTANCE_STATUS_RUNNING,
		pb.InstanceStatus_INSTANCE_STATUS_RESTARTING:
		return true
	}
	return false
}

// Ended says whether an instance of this status has ended for good, by request or by itself.
func Ended(s pb.InstanceStatus) bool {
	switch s {
	case pb.InstanceStatus_INSTANCE_STATUS_STOPPED,
		pb.InstanceStatus_INSTANCE_STATUS_CRASHED,
		pb.InstanceStatus_INSTANCE_STATUS_LOST:
		return true
	}
	return false
}

// StopsOnPartition says whether an instance is to be ended where no leader is heard: it must never run twice.
func StopsOnPartition(s *pb.InstanceSpec) bool {
	return s.GetOnPartition() == pb.OnPartition_ON_PARTITION_STOP
}

// AtRest is what an instance has used, while no guest of it runs: it has no memory then, and uses nothing.
func AtRest(u *pb.Usage) *pb.Usage {
	if u.GetMemoryBytes() == 0 && u.GetCpuUsedCores() == 0 {
		return u
	}
	u = proto.CloneOf(u)
	u.MemoryBytes, u.CpuUsedCores = 0, 0
	return u
}

// StatusName is the contract's word for a status, such as "running".
func StatusName(s pb.InstanceStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "INSTANCE_STATUS_"))
}

// Merge returns the one of two records of the same instance that every node keeps: the one that was stopped,
// for what has stopped is never started again, whatever else was ordered before by somebody who did not know; then the higher
// generation, then the older placement, then the lower node id (DESIGN section 4, "Node returns"),
// and between two of one placement the one that its agent wrote later.
//
// It is commutative, associative and idempotent, since it takes the greater in a total order.
func Merge(a, b *pb.Instance) *pb.Instance {
	if compare(a, b) >= 0 {
		return a
	}
	return b
}

// SamePlacement says whether two records tell of the same instance on the same node in the same
// generation, so that they differ only in how far its story has got.
func SamePlacement(a, b *pb.Instance) bool {
	return a.GetInstanceId() == b.GetInstanceId() && a.GetGeneration() == b.GetGeneration() && a.GetNodeId() == b.GetNodeId()
}

// compare is positive where a wins over b.
func compare(a, b *pb.Instance) int {
	if a == b {
		return 0
	}
	if c := compareBools(stopped(a), stopped(b)); c != 0 {
		return c
	}
	if c := cmp.Compare(a.GetGeneration(), b.GetGeneration()); c != 0 {
		return c
	}
	if c := -compareTimes(a.GetPlacedAt(), b.GetPlacedAt()); c != 0 {
		return c
	}
	if c := -cmp.Compare(a.GetNodeId(), b.GetNodeId()); c != 0 {
		return c
	}
	if c := cmp.Compare(a.GetRevision(), b.GetRevision()); c != 0 {
		return c
	}
	return bytes.Compare(encode(a), encode(b))
}

func stopped(i *pb.Instance) bool { return i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_STOPPED }

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func compareTimes(a, b *timestamppb.Timestamp) int {
	if c := cmp.Compare(a.GetSeconds(), b.GetSeconds()); c != 0 {
		return c
	}
	return cmp.Compare(a.GetNanos(), b.GetNanos())
}

// encode breaks the last tie, which two honest records never reach.
func encode(i *pb.Instance) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(i)
	if err != nil { // only invalid UTF-8, which the wire refuses before it gets here
		return nil
	}
	return raw
}
