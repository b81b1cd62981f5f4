package web

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/internal/browser"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

var screenshots = flag.Bool("screenshots", false, "take the pictures of docs/status-page.md anew")

// shopCluster is a cluster as somebody may have it, the same each time.
func shopCluster() *plainCluster {
	dice := rand.New(rand.NewPCG(7, 7))
	now := time.Now()
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	c := &plainCluster{status: &pb.GetClusterStatusResponse{
		ClusterId: "3b0e7c52-19d4-4a86-b1f0-2c9d8e74a6b5", LeaderId: "6f1c0000-52f7-4c0a-9f4e-8d1b7c2a90e1", LeaderName: "ams-1", Term: 12, ClusterName: "shop-eu",
		Voters: []string{"ams-1", "ams-2", "fra-1"}, Members: map[string]uint32{"alive": 5, "draining": 1}, Version: "v0.5.0",
	}}
	nodes := []struct{ name, role, state, zone string }{
		{"ams-1", "leader", "alive", "ams"}, {"ams-2", "voter", "alive", "ams"}, {"fra-1", "voter", "alive", "fra"},
		{"fra-2", "agent", "draining", "fra"}, {"par-1", "agent", "alive", "par"}, {"par-2", "agent", "alive", "par"},
	}
	for n, one := range nodes {
		c.members = append(c.members, &pb.Member{
			NodeId: fmt.Sprintf("6f1c%04d-52f7-4c0a-9f4e-8d1b7c2a90e1", n), Name: one.name, Role: one.role, State: one.state, Version: "v0.5.0",
			GossipAddr: fmt.Sprintf("10.2.0.%d:7400", 11+n), RpcAddr: fmt.Sprintf("10.2.0.%d:7401", 11+n), HttpAddr: fmt.Sprintf("10.2.0.%d:7402", 11+n),
			Labels: map[string]string{"zone": one.zone, "disk": "ssd"},
			Limits: &pb.NodeLimits{MaxInstances: 10_000, MaxMemoryBytes: 2 << 30, MaxCpuMillicores: 4000}, CommittedCpuMillicores: uint32(100 * dice.IntN(9)),
			Vitals: &pb.NodeVitals{
				CpuUsedCores: 0.1 + 3*dice.Float64()*dice.Float64(), CpuCores: 4, ResidentBytes: uint64(180+dice.IntN(90)) << 20,
				UpFor: durationpb.New(time.Duration(20+dice.IntN(9)) * time.Hour), Starts: uint64(20 + dice.IntN(30)), Crashes: uint64(dice.IntN(9)),
				GuestCpuUsedCores: 0.1 * dice.Float64(), GuestMemoryBytes: uint64(20+dice.IntN(40)) << 20,
			},
		})
	}
	say := func(kind string, age time.Duration, i *pb.Instance, details map[string]string) {
		c.events = append(c.events, &pb.Event{
			EventId: i.GetNodeId() + "/1/" + strconv.Itoa(len(c.events)+1), Time: ago(age), Type: kind, NodeId: i.GetNodeId(), InstanceId: i.GetInstanceId(), Name: i.GetSpec().GetName(), Details: details,
		})
	}
	for n, name := range []string{"shop-front", "shop-front", "cart", "cart", "cart", "search", "search", "search-index", "mailer", "thumbnails", "thumbnails", "payments", "payments", "stock-sync", "nightly-report"} {
		m := c.members[n%len(c.members)]
		up := time.Duration(2+dice.IntN(300)) * time.Minute
		one := &pb.Instance{
			InstanceId: fmt.Sprintf("0199f%03x-7c1a-7%03x-8b2e-4f0c6d5e%04x", 16*n+5, 37*n+18, 4099*n+77), NodeId: m.GetNodeId(), NodeName: m.GetName(),
			Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Durability: pb.Durability_DURABILITY_WITNESSED, Generation: 1,
			Spec: &pb.InstanceSpec{
				Name: name, ModuleHash: "sha256:5f3c9d0a7be1" + fmt.Sprintf("%052x", 977*n*n+11), Args: []string{"--region", "eu"}, MemoryLimitBytes: 64 << 20 << (n % 3),
				RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS, Backoff: durationpb.New(time.Second)},
			},
			Grants: []*pb.Grant{
				{CapabilityId: "kv", ProviderType: "kv", Permissions: []string{"kv:read", "kv:write"}},
				{CapabilityId: "messaging", ProviderType: "messaging", Permissions: []string{"msg:publish:orders.>"}},
			},
			CreatedAt: ago(up), StartedAt: ago(up),
			Usage: &pb.Usage{
				CpuTime: durationpb.New(time.Duration(float64(up) * 0.03 * dice.Float64())), CpuUsedCores: 0.6 * dice.Float64() * dice.Float64(),
				Fuel: uint64(dice.IntN(900)) * 1_234_567_891, MemoryBytes: uint64(3+dice.IntN(30)) << 20, MemoryPeakBytes: 38 << 20,
			},
		}
		say("instance.started", up, one, nil)
		switch name {
		case "stock-sync":
			one.Usage.MemoryBytes, one.Usage.CpuUsedCores = 0, 0
			one.Status, one.LastError, one.Restarts, one.ExitCode = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING, "exit code 3", 4, proto.Int32(3)
			one.CreatedAt, one.StartedAt, one.FinishedAt = ago(14*time.Minute), ago(40*time.Second), ago(9*time.Second)
			one.RestartAt = timestamppb.New(now.Add(7 * time.Second))
			c.events = c.events[:len(c.events)-1]
			say("instance.started", 14*time.Minute, one, nil)
			for i, at := range []int{420, 340, 200, 40} {
				down := time.Duration(at) * time.Second
				say("instance.crashed", down+time.Duration(2<<i)*time.Second, one, map[string]string{"error": "exit code 3", "exit_code": "3", "backoff": fmt.Sprintf("%d s", 1<<i)})
				say("instance.restarted", down, one, map[string]string{"restarts": strconv.Itoa(i + 1)})
			}
			say("instance.crashed", 9*time.Second, one, map[string]string{"error": "exit code 3", "exit_code": "3", "backoff": "16 s"})
			for i := range 18 {
				c.logs = appendLog(c.logs, one.GetInstanceId(), ago(time.Duration(60-3*i)*time.Second), []string{"asking the warehouse for changes since 41 877", "213 changes, 3 pages", "<b>unexpected</b> answer of page 2: 502 Bad Gateway"}[i%3], i%3 == 2)
			}
		case "nightly-report":
			one.Usage.MemoryBytes, one.Usage.CpuUsedCores = 0, 0
			one.Status, one.LastError, one.FinishedAt = pb.InstanceStatus_INSTANCE_STATUS_CRASHED, "wasm trap: out of bounds memory access in func render", ago(11*time.Minute)
			one.Spec.RestartPolicy.PolicyType = pb.PolicyType_POLICY_TYPE_NEVER
			say("instance.crashed", 11*time.Minute, one, map[string]string{"error": one.GetLastError()})
		default:
			m.Instances++
			m.CommittedMemoryBytes += one.GetSpec().GetMemoryLimitBytes()
		}
		c.instances = append(c.instances, one)
	}
	for _, p := range []struct{ id, kind, backend string }{{"kv", "kv", "raft:"}, {"http", "http", "direct:"}, {"messaging", "messaging", "embedded:"}, {"sessions", "kv", "redis://10.2.0.40:6379/2"}} {
		status := &pb.ProviderStatus{Provider: &pb.Provider{ProviderId: p.id, ProviderType: p.kind, Config: map[string]string{"backend": p.backend}, State: pb.ProviderState_PROVIDER_STATE_RUNNING}}
		status.Calls = &pb.CallRates{
			CallsPerSecond: 180 * dice.Float64(), LatencyP50: durationpb.New(time.Duration(30+dice.IntN(500)) * time.Microsecond),
			LatencyP99: durationpb.New(time.Duration(900+dice.IntN(2000)) * time.Microsecond),
		}
		for _, m := range c.members {
			status.Nodes = append(status.Nodes, m.GetName())
		}
		c.providers = append(c.providers, status)
	}
	c.history = quarterOfAnHour(now, 180)
	slices.SortFunc(c.events, func(a, b *pb.Event) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	return c
}

// quarterOfAnHour is how such a cluster may have fared, as far back as there are samples.
func quarterOfAnHour(now time.Time, samples int) *pb.GetHistoryResponse {
	dice := rand.New(rand.NewPCG(3, 3))
	h := &pb.GetHistoryResponse{Period: durationpb.New(5 * time.Second), Window: durationpb.New(15 * time.Minute)}
	running, load := uint32(11), 90.0
	for n := range samples {
		one := &pb.HistorySample{
			Time: timestamppb.New(now.Add(-time.Duration(samples-n) * 5 * time.Second)), Span: durationpb.New(5 * time.Second),
			Instances: map[string]uint32{}, Calls: &pb.CallRates{},
		}
		switch n {
		case 40, 90:
			running++
			one.StartsPerSecond = 0.2
		case 96, 112, 140, 174:
			one.CrashesPerSecond = 0.2
			one.Instances["restarting"] = 1
		case 97, 113, 142:
			one.StartsPerSecond = 0.2
		case 178, 179:
			one.Instances["restarting"] = 1
		}
		one.Instances["running"] = running
		load = max(20, load+12*(dice.Float64()-0.47))
		one.GuestCpuUsedCores = load / 40
		one.Calls.CallsPerSecond = load + 15*dice.Float64()
		if n > 108 && n < 116 {
			one.Calls.ErrorsPerSecond = 6 * dice.Float64()
		}
		one.Calls.LatencyP50 = durationpb.New(time.Duration(380+dice.IntN(60)) * time.Microsecond)
		one.Calls.LatencyP99 = durationpb.New(time.Duration(1500+dice.IntN(900)) * time.Microsecond)
		h.Samples = append(h.Samples, one)
	}
	return h
}

func appendLog(logs map[string][]*pb.LogEntry, id string, at *timestamppb.Timestamp, line string, failed bool) map[string][]*pb.LogEntry {
	if logs == nil {
		logs = map[string][]*pb.LogEntry{}
	}
	stream := "stdout"
	if failed {
		stream = "stderr"
	}
	logs[id] = append(logs[id], &pb.LogEntry{Time: at, Stream: stream, Line: []byte(line), Seq: uint64(len(logs[id]) + 1)})
	return logs
}

// TestScreenshots is no test: it takes the pictures of the documentation, when it is asked to.
func TestScreenshots(t *testing.T) {
	if !*screenshots {
		t.Skip("go test ./web -run TestScreenshots -screenshots takes them anew")
	}
	c := shopCluster()
	base := serve(t, c)
	b := browser.Start(t)
	crashed := c.instances[13].GetInstanceId()
	for _, shot := range []struct {
		name, path, scheme string
		width, height      int
	}{
		{"overview", "/", "light", 1200, 1080},
		{"overview-dark", "/", "dark", 1200, 1080},
		{"instances", "/instances?status=all&sort=name", "light", 1200, 940},
		{"instance", "/instances/" + crashed, "light", 1200, 1180},
		{"providers", "/providers", "light", 1200, 700},
		{"phone", "/", "light", 390, 844},
	} {
		p := b.Tab(shot.width, shot.height)
		p.Prefer(shot.scheme)
		p.Go(base + shot.path)
		p.Shows("live")
		picture := p.Screenshot(false)
		if err := os.WriteFile(filepath.Join("..", "docs", "images", shot.name+".png"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d KB", shot.name, len(picture)/1000)
	}
}
