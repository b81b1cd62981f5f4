package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func TestLeaderKilledUnderLoadLosesNoStartAndDoublesNone(t *testing.T) {
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	leader := c.Leader()
	survivors := c.Followers()
	hash := survivors[0].Run("--name", "warm", "--count", "3", actor(t), "--", "forever")[0].ModuleHash

	// Two clients that start one instance after the other, each through its own survivor, and
	// repeat what was not acknowledged, as the command line does.
	var acknowledged, refused atomic.Int64
	var accepted sync.Map // instance id -> node it was acknowledged on
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var load sync.WaitGroup
	for _, via := range survivors {
		conn, err := rpc.Dial(via.RPC())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := pb.NewControlPlaneServiceClient(conn)
		load.Go(func() {
			for ctx.Err() == nil {
				id := uuid.Must(uuid.NewV7()).String()
				// Not the load's context: a start that has begun is seen through.
				once, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				err := rpc.Retry(once, func(ctx context.Context) error {
					resp, err := client.StartInstance(ctx, &pb.StartInstanceRequest{
						Spec: &pb.InstanceSpec{
							Name: "load", ModuleHash: hash, Args: []string{"forever"}, MemoryLimitBytes: 1 << 20,
							RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER},
						},
						InstanceIds: []string{id},
					})
					if err != nil {
						return err
					}
					for _, f := range resp.GetFailures() {
						// A node that died under the order: not acknowledged, and not to be repeated.
						return fmt.Errorf("%s: %s", f.GetErrorCode(), f.GetMessage())
					}
					accepted.Store(id, resp.GetInstances()[0].GetNodeName())
					acknowledged.Add(1)
					return nil
				})
				cancel()
				if err != nil && refused.Add(1) < 10 {
					t.Logf("start through %s not acknowledged: %v", via.Name, err)
				}
			}
		})
	}
	rig.Wait(t, "the load to be under way", 20*time.Second, func() error {
		if n := acknowledged.Load(); n < 50 {
			return fmt.Errorf("%d acknowledged", n)
		}
		return nil
	})
	leader.Kill()
	killed := acknowledged.Load()
	rig.Wait(t, "starts under the next leader", 15*time.Second, func() error {
		if n := acknowledged.Load(); n < killed+50 {
			return fmt.Errorf("%d acknowledged since the kill", n-killed)
		}
		return nil
	})
	stop()
	load.Wait()

	listed := survivors[0].PS("-a", "--name", "load")
	seen := map[string]rig.Instance{}
	for _, i := range listed {
		if _, twice := seen[i.InstanceID]; twice {
			t.Errorf("%s is listed twice", i.InstanceID)
		}
		seen[i.InstanceID] = i
	}
	lost, checked := 0, 0
	accepted.Range(func(id, node any) bool {
		if node == leader.Name {
			return true // its host is gone; what becomes of it is not this test's
		}
		checked++
		if i, ok := seen[id.(string)]; !ok || i.Status != "running" || i.NodeName != node {
			lost++
			t.Errorf("%s was acknowledged on %s and is now %+v", id, node, i)
		}
		return true
	})
	t.Logf("%d starts acknowledged, %d of them on the survivors, %d lost; %d not acknowledged", acknowledged.Load(), checked, lost, refused.Load())

	// What runs on the survivors is what was asked for, once each.
	for _, n := range survivors {
		mine := n.PS("-a", "--name", "load", "--node", n.Name)
		ids := map[string]bool{}
		for _, i := range mine {
			ids[i.InstanceID] = true
		}
		if len(ids) != len(mine) {
			t.Errorf("%s runs %d instances of %d ids", n.Name, len(mine), len(ids))
		}
	}
}

func TestPausedLeaderIsReplacedAndFollowsWhenItWakes(t *testing.T) {
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	first := c.Leader()
	survivors := c.Followers()
	before := survivors[0].Status()
	first.Pause()
	rig.Wait(t, "another leader", 20*time.Second, func() error {
		status, err := survivors[0].TryStatus()
		if err == nil && (status.Leader.Name == first.Name || status.Leader.Name == "" || status.Recovering) {
			err = fmt.Errorf("the leader is %q, recovering %t", status.Leader.Name, status.Recovering)
		}
		return err
	})
	survivors[1].Run("--name", "meanwhile", "--timeout", "20s", actor(t), "--", "forever")
	first.Continue()
	status := c.WaitFormed(3)
	if status.Leader.Name == first.Name || status.Term <= before.Term {
		t.Errorf("%s woke up and leads again: %+v", first.Name, status)
	}
	if got := first.Inspect("meanwhile"); got.Status != "running" {
		t.Errorf("seen from %s the new instance is %s", first.Name, got.Status)
	}
}

func TestWithoutQuorumNothingStartsAndWhatRunsGoesOn(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	c.Any().Run("--name", "steady", "--count", "3", actor(t), "--", "tick", "100")
	last := c.Leader()
	others := c.Followers()
	for _, n := range others {
		n.Kill()
	}
	rig.Wait(t, "the leader to see that it leads nobody", 20*time.Second, func() error {
		status, err := last.TryStatus()
		if said, ok := errors.AsType[*rig.Error](err); ok && said.Code == "NO_LEADER" {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%s leads", status.Leader.Name)
		}
		return err
	})
	if members := last.Members(); len(members) != 3 {
		t.Errorf("without a leader members shows %v", members)
	}
	r := last.CLI("run", "--timeout", "2s", "--name", "refused", actor(t), "--", "forever")
	if e := r.Reported(); r.Code != 1 || e == nil || e.Code != "NO_LEADER" {
		t.Errorf("a start without quorum: exit code %d, %s", r.Code, r.Stderr)
	}

	others[0].Restart()
	rig.Wait(t, "a quorum of two", 30*time.Second, func() error {
		status, err := last.TryStatus()
		if err == nil && (status.Leader.Name == "" || status.Recovering) {
			err = fmt.Errorf("the leader is %q, recovering %t", status.Leader.Name, status.Recovering)
		}
		return err
	})
	for _, i := range last.PS("--name", "steady", "--node", last.Name) {
		if i.Status != "running" || i.Restarts != 0 {
			t.Errorf("%+v did not run through the loss of quorum", i)
		}
	}
	last.Run("--name", "accepted", "--timeout", "20s", actor(t), "--", "forever")
}

func TestLeaderThatLeavesHandsOverAndMovesItsInstances(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	c.Any().Run("--name", "steady", "--count", "6", actor(t), "--", "forever")
	leader := c.Leader()
	survivors := c.Followers()
	if code := leader.Leave(40 * time.Second); code != 0 {
		t.Fatalf("%s left with exit code %d", leader.Name, code)
	}
	began := time.Now()
	survivors[0].Run("--name", "next", actor(t), "--", "forever")
	t.Logf("a start was done %s after the leader's exit", time.Since(began).Round(time.Millisecond))
	listed := waitRunning(t, survivors[1], "steady", 6)
	for _, i := range listed {
		if i.NodeName == leader.Name {
			t.Errorf("%s is said to run on %s, which left", i.InstanceID, leader.Name)
		}
	}
	if !slices.ContainsFunc(listed, func(i rig.Instance) bool {
		return i.Generation > listed[0].Generation || listed[0].Generation > i.Generation
	}) {
		t.Error("no instance moved with a raised generation")
	}
	if m := survivors[0].Members()[leader.Name]; m.State != "left" {
		t.Errorf("%s left in order and is %q", leader.Name, m.State)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 2)
	n := c.Nodes()[1]
	// Nothing takes its instances: without the other node's consent the drain lasts.
	c.Nodes()[0].Pause()
	defer c.Nodes()[0].Continue()
	n.Signal(15)
	rig.Wait(t, "the first signal to be heard", 10*time.Second, func() error {
		if !strings.Contains(n.Log(), "second signal") {
			return fmt.Errorf("no word of a second signal in the log")
		}
		return nil
	})
	n.Signal(15)
	if code := n.WaitExit(5 * time.Second); code == 0 {
		t.Error("cut short, the node says that it left in order")
	}
}
