package api

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

var update = flag.Bool("update", false, "write the golden files anew")

var moment = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func TestShapesAreThoseOfTheContract(t *testing.T) {
	failure := rpc.Errorf(rpc.InstanceNotFound, "no instance %q", "web").With("ref", "web")
	failure.Time = moment
	rates := &pb.CallRates{CallsPerSecond: 120.5, ErrorsPerSecond: 1, LatencyP50: durationpb.New(12 * time.Microsecond), LatencyP99: durationpb.New(3 * time.Millisecond)}
	for name, shape := range map[string]any{
		"instance": FromInstance(&pb.Instance{
			InstanceId: "01930000-0000-7000-8000-000000000001",
			Spec: &pb.InstanceSpec{
				Name: "web", ModuleHash: "sha256:abcd", Args: []string{"-v"}, Env: map[string]string{"A": "b"},
				RestartPolicy: &pb.RestartPolicy{
					PolicyType: pb.PolicyType_POLICY_TYPE_ON_FAILURE, MaxRetries: 3, Backoff: durationpb.New(1500 * time.Millisecond),
				},
				CpuMillicores: 250, CpuHard: true, Fuel: 5_000_000_000, RunTimeout: durationpb.New(1500 * time.Millisecond),
				MemoryLimitBytes: 64 << 20, Constraints: map[string]string{"disk": "ssd"},
			},
			NodeId: "n-1", NodeName: "a", Status: pb.InstanceStatus_INSTANCE_STATUS_CRASHED,
			Usage:      &pb.Usage{CpuTime: durationpb.New(1234 * time.Millisecond), Fuel: 5_000_000_000, MemoryPeakBytes: 3 << 20},
			Durability: pb.Durability_DURABILITY_LOCAL, CreatedAt: timestamppb.New(moment), StartedAt: timestamppb.New(moment),
			FinishedAt: timestamppb.New(moment), Restarts: 3, Generation: 2, ExitCode: proto.Int32(3), LastError: "exit code 3",
		}),
		// What is not set is there all the same: null, or empty.
		"instance-bare": FromInstance(&pb.Instance{}),
		"member": FromMember(&pb.Member{
			NodeId: "n-1", Name: "a", GossipAddr: "10.0.0.5:7400", RpcAddr: "10.0.0.5:7401", HttpAddr: "10.0.0.5:7402",
			Role: "leader", State: "alive", Instances: 2, Labels: map[string]string{"disk": "ssd"}, Version: "v1", CommittedMemoryBytes: 128 << 20,
			CommittedCpuMillicores: 250, Limits: &pb.NodeLimits{MaxInstances: 10_000, MaxMemoryBytes: 8 << 30, MaxCpuMillicores: 2000},
			Vitals: &pb.NodeVitals{CpuUsedCores: 0.25, CpuCores: 2, ResidentBytes: 90 << 20, UpFor: durationpb.New(time.Minute), Starts: 5, Crashes: 1, GuestCpuUsedCores: 0.2, GuestMemoryBytes: 20 << 20, GuestCpuTime: durationpb.New(3 * time.Second)},
		}),
		"status": FromStatus(&pb.GetClusterStatusResponse{
			ClusterId: "c-1", ClusterName: "paris", LeaderId: "n-1", LeaderName: "a", Term: 4, Voters: []string{"a", "b", "c"},
			Members: map[string]uint32{"alive": 2, "draining": 1, "suspect": 1, "dead": 1}, Instances: map[string]uint32{"running": 5}, Version: "v1",
		}),
		"provider": FromProvider(&pb.ProviderStatus{
			Provider: &pb.Provider{ProviderId: "kv", ProviderType: "kv", State: pb.ProviderState_PROVIDER_STATE_RUNNING, Config: map[string]string{"backend": "raft:"}},
			Nodes:    []string{"a", "b"}, Calls: rates,
		}),
		"history": FromHistory(&pb.GetHistoryResponse{
			Period: durationpb.New(5 * time.Second), Window: durationpb.New(15 * time.Minute), Since: timestamppb.New(moment),
			Samples: []*pb.HistorySample{
				{Time: timestamppb.New(moment), Span: durationpb.New(5 * time.Second), Instances: map[string]uint32{"running": 3}, StartsPerSecond: 0.2, Calls: rates, GuestCpuUsedCores: 1.5},
				{Time: timestamppb.New(moment), Span: durationpb.New(6 * time.Second)},
			},
		}),
		"event": FromEvent(&pb.Event{
			EventId: "n-1/1", Time: timestamppb.New(moment), Type: "instance.started", NodeId: "n-1", InstanceId: "i-1", Name: "web",
		}),
		"log-entry": FromLogEntry(&pb.LogEntry{Time: timestamppb.New(moment), Stream: "stdout", Line: []byte("hi \xff"), Seq: 7}),
		"module": FromModule(&pb.CatalogModule{
			Module:    &pb.Module{ModuleHash: "sha256:abcd", SizeBytes: 12, StoredAt: timestamppb.New(moment)},
			NodeNames: []string{"a", "b"}, Instances: 3, LiveInstances: 2,
		}),
		"error": FromError(failure),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(shape, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got %s\nwant %s", got, want)
			}
		})
	}
}

func TestListsOfNothingAreEmptyArrays(t *testing.T) {
	for _, list := range []any{FromInstances(nil), FromMembers(nil)} {
		if got, err := json.Marshal(list); err != nil || string(got) != "[]" {
			t.Errorf("%T: %s, %v", list, got, err)
		}
	}
}

func TestStatusesAreWordsOfTheContract(t *testing.T) {
	for status, want := range map[pb.InstanceStatus]string{
		pb.InstanceStatus_INSTANCE_STATUS_STARTING:   "starting",
		pb.InstanceStatus_INSTANCE_STATUS_RUNNING:    "running",
		pb.InstanceStatus_INSTANCE_STATUS_STOPPED:    "stopped",
		pb.InstanceStatus_INSTANCE_STATUS_CRASHED:    "crashed",
		pb.InstanceStatus_INSTANCE_STATUS_RESTARTING: "restarting",
		pb.InstanceStatus_INSTANCE_STATUS_LOST:       "lost",
	} {
		if got := StatusName(status); got != want {
			t.Errorf("%s is %q, want %q", status, got, want)
		}
	}
}
