package node

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/internal/guest"
	"github.com/wasmatrix/wasmatrix/mirror"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// testNode is a whole node in this process.
type testNode struct {
	t       *testing.T
	client  pb.ControlPlaneServiceClient
	modules pb.ModuleServiceClient
	url     string
}

// startNode starts a node that has everything that can have metrics, and waits until it leads a cluster of its own.
func startNode(t *testing.T) *testNode {
	t.Helper()
	ip := fmt.Sprintf("127.91.%d.%d", os.Getpid()/250%250, os.Getpid()%250+1) // so that its ports are free
	ready := make(chan Info, 1)
	cfg := Config{
		NodeName: "n1", DataDir: t.TempDir(), Bind: ip, GossipPort: 7400, RPCPort: 7401, HTTPPort: 7402, NATSPort: 7403, NATSRoutePort: 7404,
		Voters: 3, GossipProfile: GossipLAN, TimingMultiplier: 1,
		Tunable: Tunable{MaxInstances: 10_000, MaxMemory: 1 << 40, MaxCPU: 1000, NodeLossGrace: time.Second, DrainTimeout: time.Second},
		Etcd:    mirror.Etcd{Endpoints: []string{ip + ":1"}}, // nobody is there, which does no harm
		Version: "test", Log: slog.New(slog.DiscardHandler), Ready: func(i Info) { ready <- i },
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node: %v", err)
		}
	})
	select {
	case info := <-ready:
		conn, err := rpc.Dial(info.RPCAddr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return &testNode{t, pb.NewControlPlaneServiceClient(conn), pb.NewModuleServiceClient(conn), "http://" + info.HTTPAddr + "/metrics"}
	case err := <-ended:
		ended <- err
		t.Fatal("the node ended before it was ready")
	case <-time.After(time.Minute):
		t.Fatal("the node was not ready within a minute")
	}
	return nil
}

// scrape returns what the node shows, as it was sent and parsed.
func (n *testNode) scrape() (text []byte, families map[string]*dto.MetricFamily) {
	n.t.Helper()
	resp, err := http.Get(n.url)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: %s, %v\n%s", n.url, resp.Status, err, body.Bytes())
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err = parser.TextToMetricFamilies(bytes.NewReader(body.Bytes()))
	if err != nil {
		n.t.Fatalf("%s: %v", n.url, err)
	}
	return body.Bytes(), families
}

// settled returns what the node shows once everything in it is up that has metrics of its own.
func (n *testNode) settled() (text []byte, families map[string]*dto.MetricFamily) {
	n.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		text, families = n.scrape()
		missing := slices.DeleteFunc([]string{
			"wasmatrix_kv_replica_applied_index", "wasmatrix_messaging_clients", "wasmatrix_provider_up", "wasmatrix_cluster_nodes", "wasmatrix_http_requests_total", "wasmatrix_provider_call_seconds",
		}, func(name string) bool { return families[name] != nil })
		if len(missing) == 0 {
			return text, families
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("never there: %v", missing)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (n *testNode) push(path string) (hash string) {
	n.t.Helper()
	module, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	hash = string(modulestore.Sum(module))
	stream, err := n.modules.PushModule(n.t.Context())
	if err == nil {
		err = stream.Send(&pb.PushModuleRequest{ModuleHash: hash, SizeBytes: uint64(len(module)), Chunk: module})
	}
	if err == nil {
		_, err = stream.CloseAndRecv()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return hash
}

// run starts so many instances.
func (n *testNode) run(hash, name string, count int, args ...string) {
	n.t.Helper()
	req := &pb.StartInstanceRequest{Spec: &pb.InstanceSpec{
		Name: name, ModuleHash: hash, Args: args, MemoryLimitBytes: 1 << 20, RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER},
		Grants: []*pb.Grant{{CapabilityId: "kv", ProviderType: "kv", Permissions: []string{"kv:read", "kv:write"}}}, // for which keys are replicated
	}}
	for range count {
		req.InstanceIds = append(req.InstanceIds, uuid.Must(uuid.NewV7()).String())
	}
	resp, err := n.client.StartInstance(n.t.Context(), req)
	if err != nil || len(resp.GetFailures()) > 0 {
		n.t.Fatalf("start %s: %v, %v", name, err, resp.GetFailures())
	}
}

func (n *testNode) stop(name string) {
	n.t.Helper()
	if _, err := n.client.StopInstance(n.t.Context(), &pb.StopInstanceRequest{Refs: []string{name}}); err != nil {
		n.t.Fatal(err)
	}
}

func TestMetricsOfAWholeNode(t *testing.T) {
	n := startNode(t)
	hash := n.push(guest.Actor(t))
	n.run(hash, "first", 1, "trap")
	n.run(n.push(guest.C(t, filepath.Join("..", "examples", "counter", "c", "main.c"))), "counting", 1)
	text, families := n.settled()

	t.Run("HoldTheNamesOfTheContract", func(t *testing.T) {
		for name, labels := range map[string][]string{ // CONTRACT section 3
			"wasmatrix_instances": {"status"}, "wasmatrix_instance_crash_total": nil, "wasmatrix_capability_invocation_latency_seconds": nil,
			"wasmatrix_api_request_total": nil, "wasmatrix_api_request_latency_seconds": nil, "wasmatrix_node_agent_health": nil, "wasmatrix_raft_is_leader": nil,
		} {
			f := families[name]
			if f == nil {
				t.Errorf("there is no %s", name)
				continue
			}
			for _, label := range labels {
				if !slices.Contains(labelsOf(f), label) {
					t.Errorf("%s has the labels %v, want %s", name, labelsOf(f), label)
				}
			}
		}
		for _, name := range []string{"wasmatrix_raft_is_leader", "wasmatrix_node_agent_health"} {
			if v := families[name].GetMetric()[0].GetGauge().GetValue(); v != 1 {
				t.Errorf("a healthy node that leads has %s %v, want 1", name, v)
			}
		}
	})
	t.Run("KeepTheRulesOfPrometheus", func(t *testing.T) {
		problems, err := promlint.New(bytes.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
	t.Run("HoldWhatRulesAndDashboardAskOfGoAndTheProcess", func(t *testing.T) {
		for _, file := range []string{"../deploy/prometheus/wasmatrix.rules.yml", "../deploy/grafana/wasmatrix.json"} {
			asks, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range regexp.MustCompile(`\b(go|process)_[a-z_]+`).FindAllString(string(asks), -1) {
				if families[name] == nil {
					t.Errorf("%s asks for %s, which is not there", file, name)
				}
			}
		}
	})
	t.Run("AreInTheReference", func(t *testing.T) {
		path := filepath.Join("..", "docs", "metrics.md")
		want := reference(t, families)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what a node shows (%v); go test ./node -run Metrics -update writes it anew. It should be:\n%s", path, err, want)
		}
	})
	t.Run("AreAsManyAfterHundredsOfInstances", func(t *testing.T) {
		n.stop("counting")
		before := series(n)
		for _, round := range []string{"one", "two", "three"} {
			n.run(hash, "crashing-"+round, 50, "trap")
			n.run(hash, "ending-"+round, 50, "exit", "0")
			n.run(hash, "stopped-"+round, 20, "forever")
			n.stop("stopped-" + round)
		}
		after := series(n)
		for name := range after {
			// A gRPC method that nobody has called before is new, and there are few.
			if !before[name] && !strings.HasPrefix(name, "wasmatrix_api_request") {
				t.Errorf("after hundreds of instances there is %s", name)
			}
		}
		if len(after) > 500 {
			t.Errorf("there are %d series", len(after))
		}
		_, families := n.scrape()
		if got := families["wasmatrix_instance_crash_total"].GetMetric()[0].GetCounter().GetValue(); got < 151 {
			t.Errorf("151 instances trapped, and %v crashes are counted", got)
		}
		if got := valueOf(families["wasmatrix_instances"], fact.StatusName(pb.InstanceStatus_INSTANCE_STATUS_RUNNING)); got != 0 {
			t.Errorf("nothing runs any more, and %v are counted", got)
		}
	})
}

// series returns the names of all series that a node shows, without the buckets of histograms.
func series(n *testNode) map[string]bool {
	_, families := n.scrape()
	all := map[string]bool{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			all[fmt.Sprint(name, m.GetLabel())] = true
		}
	}
	return all
}

func valueOf(f *dto.MetricFamily, label string) float64 {
	for _, m := range f.GetMetric() {
		if m.GetLabel()[0].GetValue() == label {
			return m.GetGauge().GetValue()
		}
	}
	return -1
}

func labelsOf(f *dto.MetricFamily) []string {
	names := map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			names[l.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// chapters are those of the reference, with how the names in each begin after wasmatrix_.
var chapters = []struct {
	title    string
	prefixes []string
}{
	{"The node", []string{"build_", "node_agent", "node_info"}},
	{"The cluster, told by its leader", []string{"cluster_", "recovery_", "node_losses", "placement_", "relocations_", "doubles_"}},
	{"Instances", []string{"instance", "memory_", "cpu_", "guest"}},
	{"Modules and compiled code", []string{"module", "compile"}},
	{"Capabilities and providers", []string{"capability_", "provider_", "kv_", "messaging_"}},
	{"Raft", []string{"raft_"}},
	{"Gossip", []string{"gossip_"}},
	{"Reports and events", []string{"report", "witness_", "event"}},
	{"Journal", []string{"journal_"}},
	{"gRPC and HTTP", []string{"api_", "http_"}},
	{"Beside the cluster", []string{"etcd_"}},
}

// reference is docs/metrics.md.
func reference(t *testing.T, families map[string]*dto.MetricFamily) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# Metrics\n\n<!-- Made from what a node shows by `go test ./node -run Metrics -update`. -->\n\n" +
		"Each node shows its own at `/metrics` on its HTTP port, for Prometheus. [deploy/prometheus](../deploy/prometheus) has a scrape\n" +
		"configuration and alert rules, [deploy/grafana](../deploy/grafana) a dashboard; [alerts](alerts.md) says what to do.\n\n" +
		"Labels have few values: never ids of instances or what users call them. What a counter counts begins at 0 with the process.\n" +
		"Besides these there are those of the Go runtime (`go_*`) and of the process (`process_*`).\n")
	left := slices.DeleteFunc(slices.Sorted(maps.Keys(families)), func(name string) bool { return !strings.HasPrefix(name, "wasmatrix_") })
	for _, c := range chapters {
		fmt.Fprintf(&b, "\n## %s\n\n| name | type | labels | unit | meaning |\n| --- | --- | --- | --- | --- |\n", c.title)
		left = slices.DeleteFunc(left, func(name string) bool {
			if !slices.ContainsFunc(c.prefixes, func(p string) bool { return strings.HasPrefix(name, "wasmatrix_"+p) }) {
				return false
			}
			f := families[name]
			labels := "none"
			if names := labelsOf(f); len(names) > 0 {
				labels = "`" + strings.Join(names, "`, `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), labels, unitOf(name), f.GetHelp())
			return true
		})
	}
	if len(left) > 0 {
		t.Errorf("these are in no chapter of the reference: %v", left)
	}
	return b.String()
}

func unitOf(name string) string {
	for _, unit := range []string{"seconds", "bytes"} {
		if strings.HasSuffix(strings.TrimSuffix(name, "_total"), "_"+unit) {
			return unit
		}
	}
	return "none"
}
