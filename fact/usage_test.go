package fact

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// filled sets each field of a message to something, so that one that is forgotten is noticed.
func filled(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.IsList():
			list := m.Mutable(f).List()
			list.Append(list.NewElement())
		case f.IsMap():
		case f.Kind() == protoreflect.MessageKind:
			m.Set(f, m.NewField(f))
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(string(f.Name())))
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(2))
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(7))
		case f.Kind() == protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(7))
		case f.Kind() == protoreflect.Int32Kind:
			m.Set(f, protoreflect.ValueOfInt32(7))
		}
	}
}

func TestUsageChangesNothingElseOfARecord(t *testing.T) {
	i := &pb.Instance{}
	filled(i.ProtoReflect())
	before := proto.CloneOf(i)
	got := WithUsage(i, &pb.Usage{CpuTime: durationpb.New(time.Second), Fuel: 9, MemoryBytes: 8, MemoryPeakBytes: 8, CpuUsedCores: 0.5})
	if !proto.Equal(i, before) {
		t.Fatalf("the record itself was changed: %v", i)
	}
	if got.GetUsage().GetCpuTime().AsDuration() != time.Second || got.GetUsage().GetFuel() != 9 || got.GetUsage().GetCpuUsedCores() != 0.5 {
		t.Errorf("it used %v", got.GetUsage())
	}
	got.Usage = before.GetUsage()
	if !proto.Equal(got, before) {
		t.Errorf("the record was %v and is %v", before, got)
	}
}

func TestTotalsOnlyGrowAndWhatRestsHasNothing(t *testing.T) {
	used := func(seconds int, fuel, memory, peak uint64, cores float64) *pb.Usage {
		return &pb.Usage{CpuTime: &durationpb.Duration{Seconds: int64(seconds)}, Fuel: fuel, MemoryBytes: memory, MemoryPeakBytes: peak, CpuUsedCores: cores}
	}
	const running, crashed = pb.InstanceStatus_INSTANCE_STATUS_RUNNING, pb.InstanceStatus_INSTANCE_STATUS_CRASHED
	for name, test := range map[string]struct {
		status           pb.InstanceStatus
		had, known, want *pb.Usage
	}{
		"nothing is known beside the record":  {running, used(2, 2, 2, 2, 0), nil, used(2, 2, 2, 2, 0)},
		"nothing was known before":            {running, nil, used(2, 2, 2, 2, 0.5), used(2, 2, 2, 2, 0.5)},
		"it runs on":                          {running, used(1, 1, 1, 1, 0), used(2, 2, 2, 3, 0.5), used(2, 2, 2, 3, 0.5)},
		"the record is newer":                 {running, used(3, 3, 1, 9, 0), used(2, 2, 8, 8, 0.5), used(3, 3, 1, 9, 0)},
		"it has ended since":                  {crashed, used(3, 3, 0, 9, 0), used(2, 2, 8, 8, 0.5), used(3, 3, 0, 9, 0)},
		"it was lost, and more had been told": {crashed, used(1, 1, 0, 1, 0), used(2, 2, 8, 8, 0.5), used(2, 2, 0, 8, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			got := WithUsage(&pb.Instance{Status: test.status, Usage: test.had}, test.known)
			if !proto.Equal(got.GetUsage(), test.want) {
				t.Errorf("it used %v, want %v", got.GetUsage(), test.want)
			}
		})
	}
}
