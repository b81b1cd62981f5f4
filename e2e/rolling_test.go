package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// Five nodes are restarted one after the other, while others ask for starts and count what runs.
func TestRollingRestartRefusesNoStartAndNoNameDips(t *testing.T) {
	const running = 10
	c := product.Form(t, 5)
	waitVoters(t, c, 3)
	hash := c.Any().Run("--name", "web", "--count", fmt.Sprint(running), "--restart", "always", actor(t), "--", "forever")[0].ModuleHash
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	// Both go through a node that is not the one being restarted, as a load balancer would.
	var (
		mu    sync.Mutex // guards via
		via   = c.Nodes()[1]
		tasks sync.WaitGroup
	)
	asked := func() *rig.Node {
		mu.Lock()
		defer mu.Unlock()
		return via
	}
	starts, looks, unsure, fewest := 0, 0, 0, running
	tasks.Go(func() {
		for ctx.Err() == nil {
			if err := startOnce(asked(), hash); err != nil {
				t.Errorf("start %d: %v", starts, err)
			}
			starts++
			pauseFor(ctx, 100*time.Millisecond)
		}
	})
	tasks.Go(func() {
		for ctx.Err() == nil {
			n, sure, err := countRunning(asked(), "web")
			switch {
			case err != nil:
				t.Errorf("look %d: %v", looks, err)
			case !sure:
				unsure++
			case n < running:
				t.Errorf("look %d: %d of %d run", looks, n, running)
				fewest = min(fewest, n)
			}
			looks++
			pauseFor(ctx, 50*time.Millisecond)
		}
	})

	for at, n := range c.Nodes() {
		mu.Lock()
		via = c.Nodes()[(at+1)%5]
		mu.Unlock()
		if code := n.Leave(40 * time.Second); code != 0 {
			t.Errorf("%s left with exit code %d", n.Name, code)
		}
		n.Restart()
		c.WaitFormed(5)
	}
	stop()
	tasks.Wait()
	t.Logf("%d starts, %d looks, %d of them while a new leader asked around, never fewer than %d of %d", starts, looks, unsure, fewest, running)
	if starts < 20 || looks-unsure < 20 || unsure > looks/4 {
		t.Errorf("%d starts and %d looks are too few to tell", starts, looks)
	}
}

// startOnce starts an instance that ends by itself, repeating the request as the command line does.
func startOnce(n *rig.Node, hash string) error {
	conn, err := rpc.Dial(n.RPC())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req := &pb.StartInstanceRequest{
		Spec: &pb.InstanceSpec{
			Name: "once", ModuleHash: hash, Args: []string{"exit", "0"}, MemoryLimitBytes: 1 << 20,
			RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER},
		},
		InstanceIds: []string{uuid.Must(uuid.NewV7()).String()},
	}
	return rpc.Retry(ctx, func(ctx context.Context) error {
		resp, err := pb.NewControlPlaneServiceClient(conn).StartInstance(ctx, req)
		if err != nil {
			return err
		}
		for _, f := range resp.GetFailures() {
			return rpc.Errorf(rpc.Code(f.GetErrorCode()), "%s", f.GetMessage())
		}
		return nil
	})
}

// countRunning returns how many instances of a name run, and whether the leader is sure of it: a new one
// says that it still asks the agents.
func countRunning(n *rig.Node, name string) (count int, sure bool, err error) {
	conn, err := rpc.Dial(n.RPC())
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = rpc.Retry(ctx, func(ctx context.Context) error {
		count, sure = 0, true
		stream, err := pb.NewControlPlaneServiceClient(conn).ListInstances(ctx, &pb.ListInstancesRequest{Name: name})
		if err != nil {
			return err
		}
		for {
			page, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			sure = sure && !page.GetRecovering() && len(page.GetMissingNodes()) == 0
			for _, i := range page.GetInstances() {
				if i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_RUNNING {
					count++
				}
			}
		}
	})
	return count, sure, err
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
