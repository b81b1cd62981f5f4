package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/runtime"
)

const (
	// spinning is how many guests never rest.
	spinning = 16
	// apiCalls is how many calls a 99th percentile is of, apiPause how long a caller waits between two: as users do.
	apiCalls, apiPause = 2000, 5 * time.Millisecond
	// sharedOver is how long it is counted how much each of them computes.
	sharedOver = 10 * time.Second
)

// spinningGuests measures what guests that never rest leave to the others: to the process that runs them, to who asks it, to one another,
// and to the cluster.
func spinningGuests(b *bench) {
	collectionBeside(b)
	nodeBeside(b)
	clusterBeside(b)
}

// collectionBeside measures a collection of all garbage in a process that runs guests as an agent does: this one.
func collectionBeside(b *bench) {
	ctx, stop := context.WithCancel(context.Background())
	cores := goruntime.GOMAXPROCS(0)
	e, err := runtime.New(ctx, runtime.Config{RaiseProcessors: true})
	if err != nil {
		b.Fatal(err)
	}
	m, err := e.Compile(ctx, "spinner", func(context.Context) ([]byte, error) { return os.ReadFile(b.spinner()) })
	if err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	defer func() {
		stop()
		running.Wait()
		m.Release()
		if err := e.Close(context.Background()); err != nil {
			b.Errorf("%v", err)
		}
		goruntime.GOMAXPROCS(cores) // which the engine raised
	}()
	for range spinning {
		i, err := e.Instantiate(ctx, m, runtime.Spec{Args: []string{"spinner"}, MemoryLimit: mib})
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() { i.Run(ctx) })
	}
	settle(time.Second)
	var took []time.Duration
	for range 100 {
		began := time.Now()
		goruntime.GC()
		took = append(took, time.Since(began))
		settle(10 * time.Millisecond)
	}
	report(b, fmt.Sprintf("runtime.GC() beside %d spinning guests, median", spinning), quantile(took, 0.5), 5*time.Millisecond, "")
	report(b, "the same, worst of 100", quantile(took, 1), 5*time.Millisecond, "")
}

// nodeBeside measures a node that runs them.
func nodeBeside(b *bench) {
	c := b.product.New(b)
	n := c.Node("n1")
	n.Env = []string{"GODEBUG=gctrace=1"} // so its log has what each collection took
	n.Start()
	c.WaitFormed(1)
	settle(3 * time.Second) // starting is not idling
	hash := b.warm(c, b.small())
	client := b.dial(n)
	idle := b.askAndStart(client, hash)
	spinners := n.Run("--name", "spinner", "--count", fmt.Sprint(spinning), "--memory", "1MiB", "--timeout", "60s", b.spinner())
	settle(2 * time.Second)
	collected := len(collections(n))
	busy := b.askAndStart(client, hash)
	for i, call := range []string{"inspect", "start of an idle guest"} {
		report(b, fmt.Sprintf("%s on an idle node, p99", call), quantile(idle[i], 0.99), 0, "")
		report(b, fmt.Sprintf("the same beside %d spinning guests, p50", spinning), quantile(busy[i], 0.5), 0, "")
		report(b, "the same, p99", quantile(busy[i], 0.99), 0, "")
		report(b, "the same, p99 in proportion to that of the idle node", float64(quantile(busy[i], 0.99))/float64(quantile(idle[i], 0.99)), 3, "times")
	}
	if all := collections(n)[collected:]; len(all) > 0 {
		report(b, "a collection of garbage in that node meanwhile, median", quantile(all, 0.5), 0, "")
		report(b, fmt.Sprintf("the same, worst of %d", len(all)), quantile(all, 1), 0, "")
	}
	report(b, "the share of a spinning guest that is the furthest from an equal one, off by", b.unevenness(n, spinners), 10, "%")
	stops, ends := b.stopsAndTimeouts(client, hash, spinners)
	report(b, "stop of a spinning guest beside the others, median", quantile(stops, 0.5), 100*time.Millisecond, "")
	report(b, fmt.Sprintf("the same, worst of %d", len(stops)), quantile(stops, 1), 100*time.Millisecond, "")
	report(b, "run --run-timeout 100ms of a spinning guest, from its start to its end, median", quantile(ends, 0.5), 150*time.Millisecond, "")
	report(b, fmt.Sprintf("the same, worst of %d", len(ends)), quantile(ends, 1), 150*time.Millisecond, "")
	n.Kill() // what is measured next has the machine to itself
}

// askAndStart returns what calls took that ask for an instance, and such that start one.
func (b *bench) askAndStart(client pb.ControlPlaneServiceClient, hash string) [2][]time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	one := b.started(client, hash, nil, "forever")
	var took [2][]time.Duration
	for n := range apiCalls {
		began := time.Now()
		if _, err := client.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: one}); err != nil {
			b.Fatal(err)
		}
		took[0] = append(took[0], time.Since(began))
		settle(apiPause)
		if n%4 == 0 {
			began = time.Now()
			b.start(client, hash, 1)
			took[1] = append(took[1], time.Since(began))
			settle(apiPause)
		}
	}
	return took
}

// unevenness counts what each of the guests computes, and returns by how many percent the one that is the furthest from it is off an
// equal share.
func (b *bench) unevenness(n *rig.Node, spinners []rig.Instance) float64 {
	from := time.Now()
	settle(sharedOver)
	until := time.Now()
	steps, total := make([]float64, len(spinners)), 0.0
	for i, s := range spinners {
		for _, entry := range n.Logs(s.InstanceID) {
			if entry.Time.After(from) && entry.Time.Before(until) {
				steps[i]++
				total++
			}
		}
	}
	b.Logf("  steps of each: %v", steps)
	equal, furthest := total/float64(len(spinners)), 0.0
	for _, s := range steps {
		furthest = max(furthest, s-equal, equal-s)
	}
	return 100 * furthest / equal
}

// stopsAndTimeouts stops one of the guests after the other, each time with another one in its place, and returns what that took, and how long
// guests ran that may run for 100 ms.
func (b *bench) stopsAndTimeouts(client pb.ControlPlaneServiceClient, hash string, spinners []rig.Instance) (stops, ends []time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for round := range 20 {
		id := spinners[round%len(spinners)].InstanceID
		if round >= len(spinners) {
			id = b.started(client, hash, nil, "spin")
		}
		b.started(client, hash, nil, "spin")
		began := time.Now()
		if _, err := client.StopInstance(ctx, &pb.StopInstanceRequest{Refs: []string{id}}); err != nil {
			b.Fatal(err)
		}
		stops = append(stops, time.Since(began))
		id = b.started(client, hash, durationpb.New(100*time.Millisecond), "spin")
		rig.Wait(b, "a guest whose time is over to end", patience, func() error {
			resp, err := client.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: id})
			if err != nil {
				return err
			}
			i := resp.GetInstance()
			if i.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_CRASHED {
				return fmt.Errorf("it is %v", i.GetStatus())
			}
			ends = append(ends, i.GetFinishedAt().AsTime().Sub(i.GetStartedAt().AsTime()))
			return nil
		})
	}
	return stops, ends
}

// started starts one guest, and returns its id.
func (b *bench) started(client pb.ControlPlaneServiceClient, hash string, timeout *durationpb.Duration, verb string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id := uuid.Must(uuid.NewV7()).String()
	resp, err := client.StartInstance(ctx, &pb.StartInstanceRequest{
		Spec: &pb.InstanceSpec{
			Name: verb, ModuleHash: hash, Args: []string{verb}, MemoryLimitBytes: mib, RunTimeout: timeout,
			RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER},
		},
		InstanceIds: []string{id},
	})
	if err == nil && len(resp.GetFailures()) > 0 {
		err = errors.New(resp.GetFailures()[0].GetMessage())
	}
	if err != nil {
		b.Fatal(fmt.Errorf("start: %w", err))
	}
	return id
}

// gcLine is what Go writes of a collection with GODEBUG=gctrace=1: the times of its three phases, in milliseconds.
var gcLine = regexp.MustCompile(`(?m)^gc \d+ @\S+ \S+: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock`)

// collections returns what each collection of garbage took that the node's log has.
func collections(n *rig.Node) []time.Duration {
	var all []time.Duration
	for _, m := range gcLine.FindAllStringSubmatch(n.Log(), -1) {
		var sum time.Duration
		for _, phase := range m[1:] {
			took, _ := time.ParseDuration(phase + "ms") // it matched
			sum += took
		}
		all = append(all, sum)
	}
	return all
}

// clusterBeside looks whether three nodes that run them still know one another, and keep their leader.
func clusterBeside(b *bench) {
	c := b.formed(3)
	leader := c.Leader()
	client := map[*rig.Node]pb.ControlPlaneServiceClient{}
	for _, n := range c.Nodes() {
		client[n] = b.dial(n)
	}
	c.Any().Run("--name", "spinner", "--count", fmt.Sprint(spinning), "--memory", "1MiB", "--timeout", "60s", b.spinner())
	ctx, cancel := context.WithTimeout(context.Background(), b.steady+patience)
	defer cancel()
	before := c.Any().Status()
	suspected := b.suspicions(c)
	unsteady := 0
	var took []time.Duration
	for began := time.Now(); time.Since(began) < b.steady; settle(200 * time.Millisecond) {
		for _, n := range c.Nodes() {
			asked := time.Now()
			status, err := client[n].GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
			took = append(took, time.Since(asked))
			if err != nil || status.GetTerm() != before.Term || status.GetLeaderName() != leader.Name || status.GetMembers()["alive"] != 3 {
				unsteady++
				b.Logf("  after %s %s says %v, %v", time.Since(began), n.Name, status, err)
			}
		}
	}
	during := fmt.Sprintf("in %s of 3 nodes with %d spinning guests", b.steady, spinning)
	b.reportMost("answers that tell of another leader, term or number of members "+during, float64(unsteady), 0)
	b.reportMost("suspicions by gossip meanwhile", b.suspicions(c)-suspected, 0)
	report(b, "status of one of those nodes, p99", quantile(took, 0.99), 0, "")
}

// suspicions returns how often a node was suspected by another one, or had to say that it is not dead.
func (b *bench) suspicions(c *rig.Cluster) (sum float64) {
	for _, n := range c.Nodes() {
		for _, series := range []string{"wasmatrix_gossip_failed_probes_total", "wasmatrix_gossip_refutes_total"} {
			value, err := n.Metric(series)
			if err != nil {
				b.Fatal(err)
			}
			sum += value
		}
	}
	return sum
}

func (b *bench) spinner() string {
	return b.built(guest.BuildC(context.Background(), filepath.Join(b.root, "bench", "testdata", "spinner.c")))
}
