package web

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

var update = flag.Bool("update", false, "write the golden files anew")

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %.200s", err, body)
	}
	return v
}

var noon = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func someCluster() *plainCluster {
	return &plainCluster{
		providers: []*pb.ProviderStatus{{
			Provider: &pb.Provider{ProviderId: "kv", ProviderType: "kv", Config: map[string]string{"backend": "raft:"}, State: pb.ProviderState_PROVIDER_STATE_RUNNING},
			Nodes:    []string{"a"}, Calls: &pb.CallRates{CallsPerSecond: 3.5, LatencyP50: durationpb.New(time.Millisecond), LatencyP99: durationpb.New(2 * time.Millisecond)},
		}},
		history: &pb.GetHistoryResponse{
			Period: durationpb.New(5 * time.Second), Window: durationpb.New(15 * time.Minute), Since: timestamppb.New(noon),
			Samples: []*pb.HistorySample{{Time: timestamppb.New(noon.Add(time.Minute)), Span: durationpb.New(5 * time.Second), Instances: map[string]uint32{"running": 1}, StartsPerSecond: 0.2}},
		},
		members: []*pb.Member{
			{NodeId: "id-a", Name: "a", GossipAddr: "10.0.0.1:7400", RpcAddr: "10.0.0.1:7401", HttpAddr: "10.0.0.1:7402", Role: "leader", State: "alive", Instances: 1, Labels: map[string]string{"disk": "ssd"}, Version: "test"},
			{NodeId: "id-b", Name: "b", Role: "agent", State: "draining"},
		},
		instances: []*pb.Instance{{
			InstanceId: "i1", NodeId: "id-a", NodeName: "a", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Generation: 1,
			Spec: &pb.InstanceSpec{Name: "web", ModuleHash: "sha256:abcd", Args: []string{"<&>"}}, CreatedAt: timestamppb.New(noon), StartedAt: timestamppb.New(noon),
		}, {
			InstanceId: "i2", NodeId: "id-b", NodeName: "b", Status: pb.InstanceStatus_INSTANCE_STATUS_CRASHED, Generation: 2,
			Spec: &pb.InstanceSpec{Name: "job", ModuleHash: "sha256:abcd"}, ExitCode: proto.Int32(3), LastError: "exit code 3", CreatedAt: timestamppb.New(noon.Add(time.Second)), FinishedAt: timestamppb.New(noon.Add(time.Minute)),
		}},
	}
}

func TestJSONIsWhatTheContractSays(t *testing.T) {
	base := serve(t, someCluster())
	for path, golden := range map[string]string{
		"/v1/status":                    "status",
		"/v1/members":                   "members",
		"/v1/instances":                 "instances",
		"/v1/instances?all":             "instances-all",
		"/v1/instances?all=true":        "instances-all",
		"/v1/instances?all=false&name=": "instances",
		"/v1/instances?all=1&name=job":  "instances-job",
		"/v1/instances?all=1&node=b":    "instances-job",
		"/v1/instances?name=no%20such":  "instances-none",
		"/v1/instances/i1":              "instance",
		"/v1/providers":                 "providers",
		"/v1/history":                   "history",
	} {
		resp, body := get(t, base+path)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		file := filepath.Join("testdata", golden+".json")
		if *update {
			if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if body != string(want) {
			t.Errorf("%s: got %s\nwant %s", path, body, want)
		}
		// HEAD says the same and sends nothing.
		head, err := http.Head(base + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := head.Body.Close(); err != nil || head.StatusCode != http.StatusOK || head.Header.Get("Content-Type") != "application/json" {
			t.Errorf("HEAD %s: %d %v %v", path, head.StatusCode, head.Header, err)
		}
	}
}

func TestErrorsHaveTheContractsShapeAndAStatus(t *testing.T) {
	base := serve(t, &plainCluster{down: rpc.Errorf(rpc.NoLeader, "nobody leads")})
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/v1/status":              {http.StatusServiceUnavailable, "NO_LEADER"},
		"/v1/instances":           {http.StatusServiceUnavailable, "NO_LEADER"},
		"/v1/events":              {http.StatusServiceUnavailable, "NO_LEADER"},
		"/v1/instances/none":      {http.StatusNotFound, "INSTANCE_NOT_FOUND"},
		"/v1/instances?all=maybe": {http.StatusBadRequest, "INVALID_REQUEST"},
		"/v1/events?since=now":    {http.StatusBadRequest, "INVALID_REQUEST"},
		"/v1/":                    {http.StatusNotFound, "INVALID_REQUEST"},
		"/v1/instances/%ff":       {http.StatusBadRequest, "INVALID_REQUEST"},
		"/v1/instances?name=%ff":  {http.StatusBadRequest, "INVALID_REQUEST"},
		"/v1/nothing":             {http.StatusNotFound, "INVALID_REQUEST"},
		"/readyz":                 {http.StatusServiceUnavailable, "NO_LEADER"},
	} {
		resp, body := get(t, base+path)
		if e := decode[api.Error](t, body); resp.StatusCode != want.status || e.ErrorCode != want.code || e.Message == "" {
			t.Errorf("%s: %d %s, want %d %s", path, resp.StatusCode, body, want.status, want.code)
		}
	}
	if resp, body := get(t, base+"/"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "nobody leads") {
		t.Errorf("the page without a leader: %d %s", resp.StatusCode, body)
	}
	if resp, _ := get(t, base+"/healthz"); resp.StatusCode != http.StatusOK {
		t.Errorf("not healthy without a leader: %d", resp.StatusCode)
	}
}

func TestUnknownNodeIsNotFound(t *testing.T) {
	resp, body := get(t, serve(t, &plainCluster{})+"/v1/instances?node=nowhere")
	if e := decode[api.Error](t, body); resp.StatusCode != http.StatusNotFound || e.ErrorCode != "NODE_NOT_FOUND" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestErrorKeepsItsDetails(t *testing.T) {
	_, body := get(t, serve(t, &plainCluster{})+"/v1/instances/a%2Fb")
	if e := decode[api.Error](t, body); e.Details["ref"] != "a/b" || e.Timestamp.IsZero() {
		t.Errorf("%s", body)
	}
}

func TestEveryErrorCodeHasAStatus(t *testing.T) {
	for _, code := range []rpc.Code{
		rpc.InvalidRequest, rpc.InstanceNotFound, rpc.ModuleNotFound, rpc.NodeNotFound, rpc.CapabilityNotFound, rpc.PermissionDenied,
		rpc.Unauthenticated, rpc.ResourceExhausted, rpc.ProviderUnavailable, rpc.CommunicationFailure, rpc.NoLeader, rpc.StaleLeader,
		rpc.Timeout, rpc.Internal,
	} {
		if statuses[code] < 400 {
			t.Errorf("%s: %d", code, statuses[code])
		}
	}
}

func TestReadyOnlyWhenTheLeaderHasRecovered(t *testing.T) {
	if resp, _ := get(t, serve(t, &plainCluster{})+"/readyz"); resp.StatusCode != http.StatusOK {
		t.Errorf("%d", resp.StatusCode)
	}
	resp, body := get(t, serve(t, &plainCluster{recovering: true, missing: []string{"x", "y"}})+"/readyz")
	if e := decode[api.Error](t, body); resp.StatusCode != http.StatusServiceUnavailable || e.Details["missing_nodes"] != "x, y" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestListOfARecoveringLeaderSaysSo(t *testing.T) {
	c := someCluster()
	c.recovering, c.missing = true, []string{"x", "a,b"}
	base := serve(t, c)
	resp, _ := get(t, base+"/v1/instances")
	if resp.Header.Get(recoveringHeader) != "true" || resp.Header.Get(missingHeader) != "x, a%2Cb" {
		t.Errorf("%v", resp.Header)
	}
	if _, body := get(t, base+"/"); !strings.Contains(body, "rebuilds its view") || !strings.Contains(body, "<bdi>a,b</bdi>") {
		t.Error("the page does not say that the leader recovers, or whom it misses")
	}
}

func TestHalfAListIsNotTakenForAWhole(t *testing.T) {
	c := someCluster()
	c.broken = rpc.Errorf(rpc.CommunicationFailure, "the leader went away")
	resp, err := http.Get(serve(t, c) + "/v1/instances")
	if err != nil {
		return // it broke before anything was sent
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || json.Valid(body) {
		t.Errorf("%v, %s", err, body)
	}
}

func TestNothingCanBeChanged(t *testing.T) {
	base := serve(t, &plainCluster{})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, http.MethodTrace, "BREW"} {
		req, err := http.NewRequest(method, base+"/v1/instances", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v", method, resp.StatusCode, resp.Header)
		}
	}
}

func TestWhatGuestsWroteIsOnlyText(t *testing.T) {
	const hostile = `<script>alert(1)</script>"' onload=x {{.}}` + "\x00\u202e"
	base := serve(t, &plainCluster{
		instances: []*pb.Instance{{InstanceId: "i1", NodeName: "a", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Spec: &pb.InstanceSpec{Name: hostile, Args: []string{hostile}}, LastError: hostile}},
		events:    []*pb.Event{{EventId: "e1", Time: timestamppb.Now(), Type: "instance.crashed", NodeId: "id-a", InstanceId: "i1", Name: hostile, Details: map[string]string{hostile: hostile}}},
	})
	for _, path := range []string{"/", "/instances", "/instances/i1", "/events", "/nodes/a"} {
		_, body := get(t, base+path)
		if strings.Contains(body, "<script>") || !strings.Contains(body, "&lt;script&gt;") {
			t.Errorf("%s carries a guest's markup:\n%s", path, body)
		}
	}
}

func TestTenThousandInstancesAreOneArray(t *testing.T) {
	c := &plainCluster{}
	for n := range 10_000 {
		c.instances = append(c.instances, &pb.Instance{InstanceId: fmt.Sprint(n), Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Spec: &pb.InstanceSpec{Name: "web"}})
	}
	base := serve(t, c)
	began := time.Now()
	_, body := get(t, base+"/v1/instances")
	if took := time.Since(began); took > 5*time.Second { // 0.1 s, but under -race on a busy machine
		t.Errorf("it took %s", took)
	}
	if got := decode[[]api.Instance](t, body); len(got) != len(c.instances) || got[9999].InstanceID != "9999" {
		t.Fatalf("%d of %d instances", len(got), len(c.instances))
	}
	if _, body := get(t, base+"/instances"); !strings.Contains(body, "1 to 100 of 10,000") || strings.Count(body, `href="/instances/`) != perPage {
		t.Fatal("the page does not stop at what it shows")
	}
	resp, body := get(t, base+"/v1/instances?offset=20&limit=3&sort=name")
	if got := decode[[]api.Instance](t, body); len(got) != 3 || resp.Header.Get(totalHeader) != "10000" {
		t.Fatalf("%d instances, %v", len(got), resp.Header)
	}
}
