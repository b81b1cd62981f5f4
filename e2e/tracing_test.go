package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// span is one that a collector has got: what is told of it, and of its process.
type span struct {
	*otlp.Span

	told map[string]string
	node string // empty for a command's
}

func (s span) trace() string { return hex.EncodeToString(s.TraceId) }

// spans is a collector: it takes what is exported to it by OTLP over gRPC.
type spans struct {
	collector.UnimplementedTraceServiceServer

	mu  sync.Mutex // guards all
	all []span
}

// collect starts a collector and returns it with its address.
func collect(t *testing.T) (*spans, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &spans{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// Export implements the collector's service.
func (s *spans) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, from := range req.GetResourceSpans() {
		process := texts(from.GetResource().GetAttributes())
		for _, scope := range from.GetScopeSpans() {
			for _, one := range scope.GetSpans() {
				told := texts(one.GetAttributes())
				told["service.name"] = process["service.name"]
				s.all = append(s.all, span{one, told, process["wasmatrix.node.name"]})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func texts(attributes []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		all[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return all
}

// path returns the names of the spans from the first of a trace to this one, each as "NAME at NODE".
func (s *spans) path(to span) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var path []string
	for {
		name := to.GetName() + " at " + to.node
		if to.GetKind() == otlp.Span_SPAN_KIND_CLIENT {
			name = "call of " + name
		}
		path = append([]string{name}, path...)
		above := slices.IndexFunc(s.all, func(o span) bool { return string(o.SpanId) == string(to.ParentSpanId) && o.trace() == to.trace() })
		if above < 0 {
			if len(to.ParentSpanId) > 0 {
				path = append([]string{"(not there yet)"}, path...)
			}
			return path
		}
		to = s.all[above]
	}
}

// find waits for a span that is wanted, and whose whole path is there.
func (s *spans) find(t *testing.T, what string, wanted func(span) bool) (found span, path []string) {
	t.Helper()
	rig.Wait(t, "the span of "+what, 30*time.Second, func() error {
		s.mu.Lock()
		all := slices.Clone(s.all)
		s.mu.Unlock()
		n := slices.IndexFunc(all, wanted)
		if n < 0 {
			return fmt.Errorf("not among %d spans", len(all))
		}
		found = all[n]
		if path = s.path(found); path[0] == "(not there yet)" {
			return fmt.Errorf("the path is %q", path)
		}
		return nil
	})
	return found, path
}

// at returns what wants a span of that name made at a node, which is no call to another one.
func at(node, name string) func(span) bool {
	return func(s span) bool {
		return s.GetName() == name && s.node == node && s.GetKind() != otlp.Span_SPAN_KIND_CLIENT
	}
}

// traced are the variables that have a cluster export to a collector, soon.
func traced(addr string) []string {
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + addr, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_SCHEDULE_DELAY=100"}
}

func TestTraceComesThroughAllNodesToTheGuestAndItsCalls(t *testing.T) {
	t.Parallel()
	collected, addr := collect(t)
	c := product.New(t, "--log-level", "debug")
	c.Setenv(traced(addr)...)
	for n, name := range []string{"n1", "n2", "n3", "n4"} {
		if node := c.Node(name); n == 0 {
			node.Start("--label", "me="+name)
		} else {
			node.Start("--join", c.Nodes()[0].IP, "--label", "me="+name)
		}
		c.WaitFormed(n + 1)
		if n == 2 {
			waitVoters(t, c, 3)
		}
	}
	agent := c.Get("n4") // no voter: so it fetches the module, and asks another node for keys
	leader := c.Leader()
	asked := c.Followers()[0]
	if agent == leader || asked == agent {
		t.Fatalf("n4 votes")
	}
	started := asked.Run("--correlation-id", "deploy-7", "--name", "web", "--constraint", "me=n4", "--capability", "kv=kv:read,kv:write",
		caller(t), "--", "set", "a", "b", "get", "a", "forever")[0]
	if started.NodeName != agent.Name {
		t.Fatalf("it runs on %s", started.NodeName)
	}

	const start, order = "wasmatrix.v1.ControlPlaneService/StartInstance", "wasmatrix.v1.NodeAgentService/StartInstance"
	toLeader := []string{
		"wasmatrix run at ", "call of " + start + " at ", start + " at " + asked.Name, "call of " + start + " at " + asked.Name, start + " at " + leader.Name,
	}
	toAgent := append(slices.Clone(toLeader), "call of "+order+" at "+leader.Name, order+" at "+agent.Name)
	toStart := append(slices.Clone(toAgent), "start instance at "+agent.Name)
	traces := map[string]bool{}
	for _, want := range []struct {
		name, node string
		below      []string
	}{
		{"place", leader.Name, toLeader},
		{"journal", agent.Name, toAgent},
		{"witness", agent.Name, toAgent},
		{"fetch module", agent.Name, toStart},
		{"compile", agent.Name, toStart},
		{"instantiate", agent.Name, toStart},
	} {
		one, path := collected.find(t, want.name, at(want.node, want.name))
		if above := path[:len(path)-1]; !slices.Equal(above, want.below) {
			t.Errorf("%s comes after\n%s\nwant\n%s", want.name, strings.Join(above, "\n"), strings.Join(want.below, "\n"))
		}
		traces[one.trace()] = true
	}
	if len(traces) != 1 {
		t.Errorf("the start has traces %v, want one", traces)
	}

	one, _ := collected.find(t, "the start", at(agent.Name, "start instance"))
	for key, want := range map[string]string{
		"wasmatrix.instance.id": started.InstanceID, "wasmatrix.instance.name": "web", "wasmatrix.module.hash": started.ModuleHash, "service.name": "wasmatrix",
	} {
		if one.told[key] != want {
			t.Errorf("the span has %s %q, want %q", key, one.told[key], want)
		}
	}
	for _, n := range []*rig.Node{asked, leader, agent} {
		served, _ := collected.find(t, "the request at "+n.Name, at(n.Name, map[bool]string{true: order, false: start}[n == agent]))
		if served.told["wasmatrix.correlation_id"] != "deploy-7" {
			t.Errorf("the request's span of %s has id %q", n.Name, served.told["wasmatrix.correlation_id"])
		}
		if !slices.ContainsFunc(strings.Split(n.Log(), "\n"), func(line string) bool {
			return strings.Contains(line, "correlation_id=deploy-7") && strings.Contains(line, "trace_id="+one.trace()) && strings.Contains(line, "span_id=")
		}) {
			t.Errorf("no line of %s names the request and its trace %s", n.Name, one.trace())
		}
	}
	rig.Wait(t, "the event of the start", 10*time.Second, func() error {
		for _, e := range asked.Events() {
			if e.Type == "instance.started" && e.InstanceID == started.InstanceID {
				return rig.Want("its correlation id", e.Details["correlation_id"], "deploy-7")
			}
		}
		return fmt.Errorf("there is none")
	})

	// The guest's call goes to another node, and is one trace, which leads back to the start.
	waitSaid(t, asked, started.InstanceID, "set a", 0)
	call, path := collected.find(t, "the call", at(agent.Name, "kv set"))
	if len(path) != 1 || call.trace() == one.trace() {
		t.Errorf("a guest's call comes after %q: want a trace of its own", path)
	}
	if len(call.GetLinks()) != 1 || hex.EncodeToString(call.GetLinks()[0].GetTraceId()) != one.trace() {
		t.Errorf("it is linked to %v, want to the start", call.GetLinks())
	}
	if call.told["wasmatrix.instance.id"] != started.InstanceID || call.told["wasmatrix.capability.id"] != "kv" {
		t.Errorf("it tells %v", call.told)
	}
	served, path := collected.find(t, "the call at the node that has the keys", func(s span) bool {
		return s.GetName() == "kv set" && s.node != agent.Name && s.trace() == call.trace()
	})
	const invoke = "wasmatrix.v1.NodeAgentService/InvokeCapability at "
	if want := []string{"kv set at n4", "call of " + invoke + "n4", invoke + served.node, "kv set at " + served.node}; !slices.Equal(path, want) {
		t.Errorf("the call comes by %q, want %q", path, want)
	}
}

// What nobody has asked for costs nothing and talks to nobody: not to where a collector would be by default, either.
func TestWithoutBeingAskedNobodyIsTraced(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	watch := func(addr string) net.Addr {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skipf("somebody has the collector's port here: %v", err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() { // ends with the listener
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				connections.Add(1)
				_ = conn.Close()
			}
		}()
		return l.Addr()
	}
	off := watch("127.0.0.1:0").String()
	for name, vars := range map[string][]string{
		"no variables": nil,
		"disabled":     append(traced(off), "OTEL_SDK_DISABLED=true"),
		"no exporter":  append(traced(off), "OTEL_TRACES_EXPORTER=none"),
	} {
		if vars == nil {
			watch("127.0.0.1:4317")
			watch("127.0.0.1:4318")
		}
		c := product.New(t)
		c.Setenv(vars...)
		c.Node("n1").Start()
		c.WaitFormed(1)
		n := c.Get("n1")
		n.Run(actor(t), "--", "exit", "0")
		if code := n.Leave(30 * time.Second); code != 0 { // what is left would be sent now
			t.Errorf("%s: the node left with %d", name, code)
		}
		if got := connections.Load(); got != 0 {
			t.Errorf("%s: %d connections", name, got)
		}
	}
}
