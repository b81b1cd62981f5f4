package controlplane

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// BenchmarkPageOf10000 is what the leader does for one look at a page of 50.
func BenchmarkPageOf10000(b *testing.B) {
	v := newView("me")
	for n := range 10_000 {
		i := instance(fmt.Sprintf("0190a000-0000-7000-8000-%012d", n), fmt.Sprintf("n%d", n%5), 1, 1, running)
		i.Spec = &pb.InstanceSpec{Name: fmt.Sprintf("web-%d", n*7919%10_000), ModuleHash: fmt.Sprintf("sha256:%064d", n%9), MemoryLimitBytes: uint64(n)}
		i.CreatedAt = &timestamppb.Timestamp{Seconds: int64(n * 7907 % 10_000)}
		i.LastError = "exit code 3"
		v.put(i)
	}
	for name, req := range map[string]*pb.ListInstancesRequest{
		"created":      {Limit: 50},
		"name":         {Limit: 50, Sort: pb.InstanceSort_INSTANCE_SORT_NAME, Descending: true},
		"name, middle": {Limit: 50, Offset: 5000, Sort: pb.InstanceSort_INSTANCE_SORT_NAME},
		"filter":       {Limit: 50, Filter: "web-77", All: true},
		"all by name":  {Sort: pb.InstanceSort_INSTANCE_SORT_NAME},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if page, total := fact.Select(v.list(req, ""), req); len(page) == 0 || total == 0 {
					b.Fatal("nothing was found")
				}
			}
		})
	}
}
