package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// plainCluster answers from plain data, over a real socket.
type plainCluster struct {
	pb.UnimplementedControlPlaneServiceServer

	down       error // what every call answers, if set
	recovering bool
	instances  []*pb.Instance
	events     []*pb.Event
}

func (c *plainCluster) GetClusterStatus(context.Context, *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	return &pb.GetClusterStatusResponse{
		ClusterId: "c1", LeaderId: "id-a", LeaderName: "a", Term: 7, Recovering: c.recovering, Voters: []string{"a"},
		Members: map[string]uint32{"alive": 1}, Instances: map[string]uint32{"running": uint32(len(c.instances))}, Version: "test",
	}, c.down
}

func (c *plainCluster) ListMembers(context.Context, *pb.ListMembersRequest) (*pb.ListMembersResponse, error) {
	return &pb.ListMembersResponse{Members: []*pb.Member{{NodeId: "id-a", Name: "a", Role: "leader", State: "alive"}}}, c.down
}

func (c *plainCluster) QueryInstance(_ context.Context, req *pb.QueryInstanceRequest) (*pb.QueryInstanceResponse, error) {
	for _, i := range c.instances {
		if i.GetInstanceId() == req.GetRef() {
			return &pb.QueryInstanceResponse{Instance: i}, nil
		}
	}
	return nil, rpc.Errorf(rpc.InstanceNotFound, "no instance %q", req.GetRef())
}

func (c *plainCluster) ListInstances(_ *pb.ListInstancesRequest, stream pb.ControlPlaneService_ListInstancesServer) error {
	if c.down != nil {
		return c.down
	}
	for from := 0; ; from += 1000 {
		page := c.instances[min(from, len(c.instances)):min(from+1000, len(c.instances))]
		if from > 0 && len(page) == 0 {
			return nil
		}
		if err := stream.Send(&pb.ListInstancesResponse{Instances: page}); err != nil {
			return err
		}
	}
}

func (c *plainCluster) WatchEvents(req *pb.WatchEventsRequest, stream pb.ControlPlaneService_WatchEventsServer) error {
	if c.down != nil {
		return c.down
	}
	var some []*pb.Event
	for _, e := range c.events {
		if req.GetSince() == nil || e.GetTime().AsTime().After(req.GetSince().AsTime()) {
			some = append(some, e)
		}
	}
	if err := stream.Send(&pb.WatchEventsResponse{Events: some}); err != nil {
		return err
	}
	if req.GetFollow() {
		<-stream.Context().Done()
	}
	return nil
}

// serve runs a server over a cluster, and returns its base URL.
func serve(t *testing.T, c *plainCluster) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := rpc.NewServer(rpc.ServerConfig{Log: slog.New(slog.DiscardHandler), Leader: alwaysLeader{}, Peers: rpc.NewPeers()})
	pb.RegisterControlPlaneServiceServer(g, c)
	go func() { _ = g.Serve(ln) }() // ends with Stop
	conn, err := rpc.Dial(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{
		Addr: "127.0.0.1:0", ControlPlane: pb.NewControlPlaneServiceClient(conn), Gatherer: prometheus.NewRegistry(),
		NodeName: "b", Version: "test", Log: slog.New(slog.DiscardHandler),
	})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String()
}

type alwaysLeader struct{}

func (alwaysLeader) Leader() (string, bool, bool) { return "", true, true }

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

func TestJSONHasTheContractsShapes(t *testing.T) {
	base := serve(t, &plainCluster{instances: []*pb.Instance{{InstanceId: "i1", Spec: &pb.InstanceSpec{Name: "web"}, Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING}}})
	_, body := get(t, base+"/v1/status")
	if s := decode[api.Status](t, body); s.ClusterID != "c1" || s.Leader.Name != "a" || s.Term != 7 {
		t.Errorf("status %s", body)
	}
	_, body = get(t, base+"/v1/members")
	if m := decode[[]api.Member](t, body); len(m) != 1 || m[0].Role != "leader" {
		t.Errorf("members %s", body)
	}
	_, body = get(t, base+"/v1/instances")
	if i := decode[[]api.Instance](t, body); len(i) != 1 || i[0].Status != "running" {
		t.Errorf("instances %s", body)
	}
	_, body = get(t, base+"/v1/instances/i1")
	if i := decode[api.Instance](t, body); i.Name != "web" {
		t.Errorf("instance %s", body)
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

func TestReadyOnlyWhenTheLeaderHasRecovered(t *testing.T) {
	if resp, _ := get(t, serve(t, &plainCluster{})+"/readyz"); resp.StatusCode != http.StatusOK {
		t.Errorf("%d", resp.StatusCode)
	}
	if resp, body := get(t, serve(t, &plainCluster{recovering: true})+"/readyz"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestNothingCanBeChanged(t *testing.T) {
	base := serve(t, &plainCluster{})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
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
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
}

func TestWhatGuestsWroteIsOnlyText(t *testing.T) {
	const hostile = `<script>alert(1)</script>`
	base := serve(t, &plainCluster{
		instances: []*pb.Instance{{InstanceId: "i1", Spec: &pb.InstanceSpec{Name: hostile}, LastError: hostile}},
		events:    []*pb.Event{{EventId: "e1", Type: "instance.crashed", Name: hostile, Details: map[string]string{hostile: hostile}}},
	})
	resp, body := get(t, base+"/")
	if strings.Contains(body, "<script") || !strings.Contains(body, "&lt;script&gt;") {
		t.Errorf("the page carries a guest's markup:\n%s", body)
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	if resp, body := get(t, base+"/page.css"); resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("Content-Type"), "text/css") || body == "" {
		t.Errorf("style: %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}

func TestTenThousandInstancesAreOneArray(t *testing.T) {
	c := &plainCluster{}
	for n := range 10_000 {
		c.instances = append(c.instances, &pb.Instance{InstanceId: fmt.Sprint(n), Spec: &pb.InstanceSpec{Name: "web"}})
	}
	base := serve(t, c)
	_, body := get(t, base+"/v1/instances")
	if got := decode[[]api.Instance](t, body); len(got) != len(c.instances) || got[9999].InstanceID != "9999" {
		t.Fatalf("%d of %d instances", len(got), len(c.instances))
	}
	if _, body := get(t, base+"/"); !strings.Contains(body, "There are more") || strings.Count(body, "/v1/instances/") > shownInstances {
		t.Fatal("the page does not stop at what it shows")
	}
}

func TestEventsGoOnWhereAClientLeftOff(t *testing.T) {
	at := func(s int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: 1_800_000_000 + s} }
	base := serve(t, &plainCluster{events: []*pb.Event{
		{EventId: "1", Type: "instance.started", Time: at(1)}, {EventId: "2", Type: "instance.crashed", Time: at(2)},
	}})
	first := readEvents(t, base, "", 2)
	if first[0].kind != "instance.started" || first[1].kind != "instance.crashed" {
		t.Fatalf("%+v", first)
	}
	again := readEvents(t, base, first[0].id, 1)
	if again[0].kind != "instance.crashed" || decode[api.Event](t, again[0].data).Type != "instance.crashed" {
		t.Fatalf("%+v", again)
	}
}

type sent struct{ id, kind, data string }

// readEvents reads n server-sent events as a browser would that last saw the event lastID.
func readEvents(t *testing.T, base, lastID string, n int) []sent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("content type %q", ct)
	}
	var events []sent
	var one sent
	lines := bufio.NewScanner(resp.Body)
	for len(events) < n && lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "id":
			one.id = value
		case "event":
			one.kind = value
		case "data":
			one.data = value
		case "":
			events = append(events, one)
			one = sent{}
		}
	}
	if len(events) < n {
		t.Fatalf("%d of %d events: %v", len(events), n, lines.Err())
	}
	return events
}
