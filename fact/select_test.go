package fact

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// records draws records, each of another id, that share most of what they are ordered by.
func records() *rapid.Generator[[]*pb.Instance] {
	return rapid.Custom(func(t *rapid.T) []*pb.Instance {
		all := make([]*pb.Instance, rapid.IntRange(0, 200).Draw(t, "records"))
		for n := range all {
			all[n] = record("x").Draw(t, "record")
			all[n].InstanceId = fmt.Sprintf("id-%03d", n)
			all[n].NodeName = strings.ToUpper(all[n].GetNodeId())
			all[n].Restarts = uint32(n % 3)
			if all[n].GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_RUNNING {
				all[n].StartedAt = &timestamppb.Timestamp{Seconds: int64(n % 4)}
			}
		}
		return all
	})
}

func request() *rapid.Generator[*pb.ListInstancesRequest] {
	return rapid.Custom(func(t *rapid.T) *pb.ListInstancesRequest {
		return &pb.ListInstancesRequest{
			All:        rapid.Bool().Draw(t, "all"),
			Filter:     rapid.SampledFrom([]string{"", "N2", "trap", "ID-1", "nothing"}).Draw(t, "filter"),
			Statuses:   rapid.SliceOfN(rapid.Map(rapid.Int32Range(1, 6), func(n int32) pb.InstanceStatus { return pb.InstanceStatus(n) }), 0, 2).Draw(t, "statuses"),
			Sort:       pb.InstanceSort(rapid.Int32Range(0, int32(len(pb.InstanceSort_name))).Draw(t, "sort")),
			Descending: rapid.Bool().Draw(t, "descending"),
		}
	})
}

// Pages of any size, put together, are the whole list: nothing twice, nothing missing.
func TestPagesAddUpToTheWholeList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, req := records().Draw(t, "records"), request().Draw(t, "request")
		whole, total := Select(slices.Clone(all), req)
		if len(whole) != total {
			t.Fatalf("%d of %d without a limit", len(whole), total)
		}
		req.Limit = rapid.Uint32Range(1, 60).Draw(t, "limit")
		var together []*pb.Instance
		for ; int(req.Offset) < total; req.Offset += req.Limit {
			page, of := Select(rapid.Permutation(all).Draw(t, "shuffled"), req)
			if of != total || len(page) > int(req.GetLimit()) {
				t.Fatalf("a page of %d, of %d; want %d, of %d", len(page), of, req.GetLimit(), total)
			}
			together = append(together, page...)
		}
		if !slices.Equal(together, whole) {
			t.Fatalf("the pages are %v\nthe whole is %v", together, whole)
		}
		if page, of := Select(slices.Clone(all), req); len(page) != 0 || of != total {
			t.Fatalf("%d beyond the end, of %d", len(page), of)
		}
	})
}

func TestWhatIsSelectedIsWhatWasAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, req := records().Draw(t, "records"), request().Draw(t, "request")
		found, _ := Select(slices.Clone(all), req)
		for _, i := range all {
			text := strings.ToLower(strings.Join([]string{i.GetInstanceId(), i.GetSpec().GetName(), i.GetNodeName(), i.GetLastError()}, "\n"))
			want := strings.Contains(text, strings.ToLower(req.GetFilter()))
			if some := req.GetStatuses(); len(some) > 0 {
				want = want && slices.Contains(some, i.GetStatus())
			} else {
				want = want && (req.GetAll() || Live(i.GetStatus()))
			}
			if slices.Contains(found, i) != want {
				t.Fatalf("%v is in the list: %t", i, !want)
			}
		}
		for n := 1; n < len(found); n++ {
			a, b := found[n-1], found[n]
			if req.GetDescending() {
				a, b = b, a
			}
			if c := comparison(req.GetSort())(a, b); c > 0 || c == 0 && found[n-1].GetInstanceId() > found[n].GetInstanceId() {
				t.Fatalf("by %s, descending %t, %v comes before %v", req.GetSort(), req.GetDescending(), found[n-1], found[n])
			}
		}
	})
}

func TestEachSortKeyOrdersByWhatItSays(t *testing.T) {
	low := &pb.Instance{
		InstanceId: "z", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, NodeName: "a", Restarts: 1, CreatedAt: &timestamppb.Timestamp{Seconds: 1},
		Spec: &pb.InstanceSpec{Name: "a", MemoryLimitBytes: 1, ModuleHash: "sha256:a"},
	}
	high := &pb.Instance{
		InstanceId: "a", Status: pb.InstanceStatus_INSTANCE_STATUS_CRASHED, NodeName: "b", Restarts: 2, CreatedAt: &timestamppb.Timestamp{Seconds: 2},
		Spec: &pb.InstanceSpec{Name: "b", MemoryLimitBytes: 2, ModuleHash: "sha256:b"}, StartedAt: &timestamppb.Timestamp{Seconds: 1},
		Usage: &pb.Usage{CpuUsedCores: 0.1},
	}
	for n, name := range pb.InstanceSort_name {
		for _, descending := range []bool{false, true} {
			want := []*pb.Instance{low, high}
			if descending {
				slices.Reverse(want)
			}
			got, _ := Select([]*pb.Instance{high, low}, &pb.ListInstancesRequest{All: true, Sort: pb.InstanceSort(n), Descending: descending})
			if !slices.Equal(got, want) {
				t.Errorf("%s, descending %t: %v", name, descending, got)
			}
		}
	}
}

func TestEqualUseIsOrderedByTheTotalAndTheLimit(t *testing.T) {
	computed := func(id string, total time.Duration, memory, limit uint64) *pb.Instance {
		return &pb.Instance{
			InstanceId: id, Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Spec: &pb.InstanceSpec{MemoryLimitBytes: limit},
			Usage: &pb.Usage{CpuTime: durationpb.New(total), MemoryBytes: memory},
		}
	}
	little, much := computed("z", time.Second, 1, 9), computed("a", time.Minute, 2, 3)
	small := computed("b", time.Minute, 1, 3)
	for sort, want := range map[pb.InstanceSort][]*pb.Instance{
		pb.InstanceSort_INSTANCE_SORT_CPU:    {little, much, small},
		pb.InstanceSort_INSTANCE_SORT_MEMORY: {small, little, much},
	} {
		if got, _ := Select([]*pb.Instance{much, little, small}, &pb.ListInstancesRequest{Sort: sort}); !slices.Equal(got, want) {
			t.Errorf("%s: %v", sort, got)
		}
	}
}
