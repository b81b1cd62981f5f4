package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	mib = 1 << 20
	kib = 1 << 10
)

// How long any one request may take here; far beyond what is promised.
const patience = 2 * time.Minute

func binarySize(b *bench) {
	info, err := os.Stat(b.product.Node)
	if err != nil {
		b.Fatal(err)
	}
	report(b, "size of the binary", float64(info.Size())/1e6, 45, "MB")
}

// idleNodes measures what nodes take that do nothing.
func idleNodes(b *bench) {
	c := b.formed(3)
	leader := c.Leader()
	settle(10 * time.Second) // joining is not idling
	const watched = 20 * time.Second
	before := map[*rig.Node]time.Duration{}
	for _, n := range c.Nodes() {
		before[n] = b.cpuTime(n)
	}
	settle(watched)
	var rss, leads, follows float64
	for _, n := range c.Nodes() {
		rss = max(rss, float64(b.rss(n))/mib)
		share := 100 * float64(b.cpuTime(n)-before[n]) / float64(watched)
		if n == leader {
			leads = share
		} else {
			follows = max(follows, share)
		}
	}
	report(b, "RSS of an idle node of 3, the largest", rss, 60, "MiB")
	report(b, "CPU of an idle voter of 3", follows, 1, "% of a core")
	report(b, "CPU of the idle leader of 3", leads, 1, "% of a core")
}

// startCached measures a start as a program sees it: one request on an open connection.
func startCached(b *bench) {
	c := b.formed(3)
	wasm := b.small()
	info, err := os.Stat(wasm)
	if err != nil {
		b.Fatal(err)
	}
	hash := b.warm(c, wasm)
	for _, via := range []struct {
		role string
		node *rig.Node
		p50  time.Duration
		p99  time.Duration
	}{
		{"the leader", c.Leader(), 3 * time.Millisecond, 25 * time.Millisecond},
		{"another node", c.Followers()[0], 3 * time.Millisecond, 25 * time.Millisecond},
	} {
		client := b.dial(via.node)
		var took []time.Duration
		for range 500 {
			began := time.Now()
			b.start(client, hash, 1)
			took = append(took, time.Since(began))
		}
		what := fmt.Sprintf("start of a cached %d KB module through %s", info.Size()/1000, via.role)
		report(b, what+", p50", quantile(took, 0.50), via.p50, "")
		report(b, what+", p99", quantile(took, 0.99), via.p99, "")
	}
}

// countThousand measures a thousand starts as a user sees them.
func countThousand(b *bench) {
	for _, module := range []struct {
		what, path string
		args       []string
		promised   time.Duration
	}{
		{"a small C module", b.small(), []string{"forever"}, 3 * time.Second},
		{"a Go module", b.large(), nil, 20 * time.Second},
	} {
		c := b.formed(3)
		b.warm(c, module.path)
		var took []time.Duration
		for i := range 3 {
			name := fmt.Sprintf("batch%d", i)
			began := time.Now()
			args := append([]string{"run", "--count", "1000", "--memory", "8MiB", "--name", name, "--timeout", patience.String(), module.path, "--"}, module.args...)
			var started []rig.Instance
			c.Any().JSON(&started, args...)
			took = append(took, time.Since(began))
			if len(started) != 1000 {
				b.Fatalf("%d of 1000 started", len(started))
			}
			c.Any().JSON(&started, "stop", "--timeout", patience.String(), name)
		}
		info, err := os.Stat(module.path)
		if err != nil {
			b.Fatal(err)
		}
		report(b, fmt.Sprintf("run --count 1000 of %s (%d KB)", module.what, info.Size()/1000), quantile(took, 0.5), module.promised, "")
	}
}

// tenThousandIdle measures what instances take that do nothing.
func tenThousandIdle(b *bench) {
	c := b.formed(1)
	n := c.Any()
	hash := b.warm(c, b.small())
	client := b.dial(n)
	settle(2 * time.Second)
	const instances = 9_990 // with those that warmed the node up, close under --max-instances
	before := b.rss(n)
	for range instances / 999 {
		b.start(client, hash, 999)
	}
	settle(5 * time.Second)
	after := b.rss(n)
	report(b, "RSS of each of 10,000 idle instances on a node", float64(after-before)/instances/kib, 60, "KiB")
	var took []time.Duration
	for range 5 {
		began := time.Now()
		if listed := n.PS(); len(listed) < instances {
			b.Fatalf("ps lists %d of %d", len(listed), instances)
		}
		took = append(took, time.Since(began))
	}
	report(b, "ps of 10,000 instances", quantile(took, 0.5), time.Second, "")
	took = took[:0]
	for range 50 {
		began := time.Now()
		b.scrape(n)
		took = append(took, time.Since(began))
	}
	report(b, "/metrics with 10,000 instances, p50", quantile(took, 0.5), 20*time.Millisecond, "")
	report(b, "the same, p95", quantile(took, 0.95), 20*time.Millisecond, "")
}

// scrape reads a node's metrics as Prometheus does.
func (b *bench) scrape(n *rig.Node) {
	resp, err := http.Get(n.HTTP() + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if size, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || size == 0 {
		b.Fatalf("/metrics: %s, %d bytes, %v", resp.Status, size, err)
	}
}

// leaderKilled measures from kill -9 to the next accepted start, as a program sees it that repeats
// its request.
func leaderKilled(b *bench) {
	c := b.formed(3)
	hash := b.warm(c, b.small())
	var took []time.Duration
	for range b.rounds {
		leader := c.Leader()
		client := b.dial(c.Followers()[0])
		began := time.Now()
		leader.Kill()
		b.start(client, hash, 1)
		took = append(took, time.Since(began))
		leader.Restart()
		c.WaitFormed(3)
		b.threeVoters(c)
	}
	report(b, "kill -9 of the leader to the next accepted start, median", quantile(took, 0.5), 1500*time.Millisecond, "")
	report(b, fmt.Sprintf("the same, worst of %d", b.rounds), quantile(took, 1), 3*time.Second, "")
}

var rebuildResult = regexp.MustCompile(`(?m)^BenchmarkRebuild\S*\s+\d+\s+(\d+) ns/op`)

// rebuildFacts runs the control plane's own benchmark of a new leader's first question.
func rebuildFacts(b *bench) {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkRebuild", "-benchtime", "5x", "./controlplane")
	cmd.Dir = b.root
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	m := rebuildResult.FindSubmatch(out)
	if m == nil {
		b.Fatalf("no result in:\n%s", out)
	}
	took, err := time.ParseDuration(string(m[1]) + "ns")
	if err != nil {
		b.Fatal(err)
	}
	report(b, "rebuild of 100,000 facts from 10 agents", took, time.Second, "")
}

// formed returns a cluster that has its leader and its voters.
func (b *bench) formed(nodes int, flags ...string) *rig.Cluster {
	c := b.product.Form(b, nodes, flags...)
	if nodes >= 3 {
		b.threeVoters(c)
	}
	return c
}

func (b *bench) threeVoters(c *rig.Cluster) {
	rig.Wait(b, "three voters", time.Minute, func() error {
		status, err := c.Any().TryStatus()
		if err != nil {
			return err
		}
		return rig.Want("the number of voters", len(status.Voters), 3)
	})
}

// small returns the path of a small guest, from C.
func (b *bench) small() string {
	return b.built(guest.BuildC(context.Background(), filepath.Join(b.root, "internal", "guest", "testdata", "actor.c")))
}

// large returns the path of a large guest, from Go.
func (b *bench) large() string {
	return b.built(guest.BuildGo(context.Background(), filepath.Join(b.root, "examples", "ticker")))
}

func (b *bench) built(path string, err error) string {
	if err != nil {
		b.Fatal(err)
	}
	return path
}

// warm runs the module once on each node, so that its bytes and its code are there, and returns its hash.
func (b *bench) warm(c *rig.Cluster, wasm string) string {
	started := c.Any().Run("--name", "warm", "--count", fmt.Sprint(len(c.Nodes())), "--memory", "8MiB", "--timeout", "60s", wasm, "--", "forever")
	return started[0].ModuleHash
}

func (b *bench) dial(n *rig.Node) pb.ControlPlaneServiceClient {
	conn, err := rpc.Dial(n.RPC())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return pb.NewControlPlaneServiceClient(conn)
}

// start starts idle instances, repeating the request as the command line does.
func (b *bench) start(client pb.ControlPlaneServiceClient, hash string, count int) {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
	}
	req := &pb.StartInstanceRequest{
		Spec: &pb.InstanceSpec{
			Name: "idle", ModuleHash: hash, Args: []string{"forever"}, MemoryLimitBytes: mib,
			RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER},
		},
		InstanceIds: ids,
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := rpc.Retry(ctx, func(ctx context.Context) error {
		resp, err := client.StartInstance(ctx, req)
		if err != nil {
			return err
		}
		for _, f := range resp.GetFailures() {
			return rpc.Errorf(rpc.Code(f.GetErrorCode()), "%s", f.GetMessage())
		}
		return nil
	})
	if err != nil {
		b.Fatalf("start: %v", err)
	}
}

func (b *bench) rss(n *rig.Node) uint64 {
	rss, err := n.RSS()
	if err != nil {
		b.Fatal(err)
	}
	return rss
}

func (b *bench) cpuTime(n *rig.Node) time.Duration {
	used, err := n.CPUTime()
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// settle lets the nodes do what they do when nobody asks for anything: that is what is measured.
func settle(d time.Duration) { <-time.After(d) }
