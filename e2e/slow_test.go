//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// How long links are bad.
	badFor = 15 * time.Second
	// How long a direction is cut: time for the node to be declared lost, and for it to ask for votes.
	cutFor = 8 * time.Second
)

// badLink loses a tenth of what passes, in either direction, and delays the rest.
var badLink = rig.Weather{Delay: 200 * time.Millisecond, Lost: 10, Doubled: 2, HeldUp: 5}

// Not beside others, for it asserts that there is no election.
func TestSlowLinksAndACutOfOneDirectionNeitherMoveTheLeaderNorDoubleAnInstance(t *testing.T) {
	network, err := rig.NewNetwork(t, 5)
	if err != nil {
		t.Skip(err)
	}
	c := product.FormOn(t, network.Hosts())
	waitVoters(t, c, 3)
	for _, n := range c.Nodes() {
		mustRunOn(t, c.Any(), n)
	}
	began := c.Leader().Status()
	voter, agents := ofRoles(t, c)
	t.Logf("%s leads, %s votes, %s do not", began.Leader.Name, voter.Name, names(agents))
	before := byID(c.Any().PS("-a"))

	load := startLoad(c, actor(t))
	var mend []func()
	for i, n := range []*rig.Node{voter, agents[0]} {
		w := badLink
		w.Seed = uint64(i)
		mend = append(mend, network.Slow(n, w))
	}
	rig.Hold(t, "that slow links move nothing", badFor, func() error {
		now, err := agents[1].TryPS("-a")
		if err != nil {
			return err
		}
		listed := byID(now)
		for id, was := range before {
			if i := listed[id]; i.Status != "running" || i.Generation != was.Generation || i.NodeID != was.NodeID {
				return fmt.Errorf("%s was in generation %d on %s and is %s in %d on %s", id, was.Generation, was.NodeName, i.Status, i.Generation, i.NodeName)
			}
		}
		return sameLeader(agents[1], began)
	})
	for _, e := range agents[1].Events() {
		if e.Type == "node.lost" {
			t.Errorf("behind a slow link %s was declared lost at %s", e.Name, e.Time)
		}
	}
	for _, end := range mend {
		end()
	}

	for _, inward := range []bool{true, false} {
		from, to := []*rig.Node{voter}, without(c.Nodes(), voter)
		if inward {
			from, to = to, from
		}
		network.CutOneWay(from, to)
		rig.Hold(t, fmt.Sprintf("the leader while a voter is cut off, inward: %t", inward), cutFor, func() error {
			return sameLeader(agents[1], began)
		})
		network.Heal()
		rig.Wait(t, "all to be one cluster again", time.Minute, func() error {
			_, err := oneCluster(c)
			return err
		})
		if err := sameLeader(voter, began); err != nil {
			t.Errorf("after a cut, inward %t: %v", inward, err)
		}
	}

	started, err := load()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d starts", len(started))
	if len(started) < 20 {
		t.Errorf("%d starts are too few to tell", len(started))
	}
	rig.Wait(t, "each start to run, once", 30*time.Second, func() error {
		runs := map[string]string{}
		for _, n := range c.Nodes() {
			ids, err := runsOn(n)
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			for _, id := range ids {
				if other := runs[id]; other != "" {
					return fmt.Errorf("%s runs on %s and on %s", id, other, n.Name)
				}
				runs[id] = n.Name
			}
		}
		for _, id := range started {
			if runs[id] == "" {
				return fmt.Errorf("%s was acknowledged and runs nowhere", id)
			}
		}
		return rig.Want("how many run", len(runs), len(started)+len(before))
	})
}

// ofRoles returns a voter that does not lead, and the nodes that have no vote.
func ofRoles(t *testing.T, c *rig.Cluster) (voter *rig.Node, agents []*rig.Node) {
	t.Helper()
	for name, m := range c.Any().Members() {
		switch m.Role {
		case "voter":
			voter = c.Get(name)
		case "agent":
			agents = append(agents, c.Get(name))
		}
	}
	if voter == nil || len(agents) != 2 {
		t.Fatalf("%v votes, %s do not", voter, names(agents))
	}
	return voter, agents
}

// sameLeader returns nil where a node says that there was no election since.
func sameLeader(n *rig.Node, began rig.Status) error {
	status, err := n.TryStatus()
	if err != nil {
		return err
	}
	if status.Leader != began.Leader || status.Term != began.Term {
		return fmt.Errorf("%s led in term %d, and %s in %d", began.Leader.Name, began.Term, status.Leader.Name, status.Term)
	}
	return nil
}

// startLoad starts instances through all nodes in turn until it is ended, and asks again where there was no
// answer. Its end returns those that were acknowledged: all.
func startLoad(c *rig.Cluster, module string) (end func() ([]string, error)) {
	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	var mu sync.Mutex // guards started and failed
	var started []string
	var failed error
	for client := range 2 {
		clients.Go(func() {
			for at := client; ctx.Err() == nil; at++ {
				id := uuid.Must(uuid.NewV7()).String()
				err := startUntilAcknowledged(c, at, module, id)
				mu.Lock()
				started, failed = append(started, id), errors.Join(failed, err)
				mu.Unlock()
				pauseFor(ctx, 200*time.Millisecond)
			}
		})
	}
	return func() ([]string, error) {
		stop()
		clients.Wait()
		return started, failed
	}
}

func startUntilAcknowledged(c *rig.Cluster, at int, module, id string) error {
	var last error
	for try := range 5 {
		via := c.Nodes()[(at+try)%len(c.Nodes())]
		if _, last = via.TryRun("--name", "load", "--restart", "always", "--instance-id", id, "--timeout", "10s", module, "--", "forever"); last == nil {
			return nil
		}
	}
	return fmt.Errorf("start %s: %w", id, last)
}

// runsOn returns what a node's agent itself says that it runs. It is asked from its own host.
func runsOn(n *rig.Node) (ids []string, err error) {
	conn, err := grpc.NewClient("passthrough:///"+n.RPC(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return n.Dial(ctx, address) }))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := pb.NewNodeAgentServiceClient(conn).ListInstances(ctx, &pb.NodeAgentServiceListInstancesRequest{})
	if err != nil {
		return nil, err
	}
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ids, nil
		}
		if err != nil {
			return nil, err
		}
		for _, i := range page.GetInstances() {
			if i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_RUNNING {
				ids = append(ids, i.GetInstanceId())
			}
		}
	}
}
