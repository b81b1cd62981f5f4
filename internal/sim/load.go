package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/e2e/chaos"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// keeps is how many instances a client keeps at most, and thinks how long it thinks between two commands.
	keeps, thinks = 5, 800 * time.Millisecond
)

// load is the clients. Each starts and stops instances of its own, so that what it asked of one has an order.
type load struct {
	sim     *Sim
	clients []*user
}

type user struct {
	*load

	number int
	mine   []string // instances that may run and that it has not stopped
}

func newLoad(s *Sim) *load {
	l := &load{sim: s}
	for i := range s.Clients {
		l.clients = append(l.clients, &user{load: l, number: i + 1})
	}
	return l
}

// during runs the clients until ctx ends, and sees through what has begun.
func (l *load) during(ctx context.Context, round int) {
	var work sync.WaitGroup
	for _, c := range l.clients {
		random := rand.New(rand.NewPCG(l.sim.Seed, uint64(round)<<32|uint64(c.number)))
		work.Go(func() { c.run(ctx, random) })
	}
	random := rand.New(rand.NewPCG(l.sim.Seed, uint64(round)<<32))
	if random.IntN(2) == 0 {
		work.Go(func() { l.maintain(ctx, random) })
	}
	work.Wait()
}

func think(ctx context.Context, random *rand.Rand) bool {
	return sleep(ctx, time.Duration(random.Int64N(int64(thinks)))) == nil
}

func (l *load) any(random *rand.Rand) *node { return l.sim.nodes[random.IntN(len(l.sim.nodes))] }

func (c *user) run(ctx context.Context, random *rand.Rand) {
	for think(ctx, random) {
		policy, via := "always", c.any(random)
		if random.IntN(5) == 0 {
			policy = "never"
		}
		// Some are impatient, and leave what they asked for to itself.
		timeout := []time.Duration{2 * time.Second, 5 * time.Second, 10 * time.Second}[random.IntN(3)]
		if id := newID(random); len(c.mine) < 2 || len(c.mine) < keeps && random.IntN(5) < 3 {
			c.start(random, via, id, policy, timeout)
		} else {
			c.stop(random, via, random.IntN(len(c.mine)), timeout)
		}
	}
}

// newID draws an id as users make them.
func newID(random *rand.Rand) string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], random.Uint64())
	binary.BigEndian.PutUint64(id[8:], random.Uint64())
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id.String()
}

// refusals are the codes of errors after which nothing was done, at least by the attempt that got it.
var refusals = []rpc.Code{rpc.InvalidRequest, rpc.InstanceNotFound, rpc.NodeNotFound, rpc.ModuleNotFound, rpc.ResourceExhausted}

// attempt does something as a user does, and says how far it came.
func (l *load) attempt(random *rand.Rand, timeout time.Duration, do func(context.Context) error) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout) // what has begun is seen through
	defer cancel()
	err := retry(ctx, random, do)
	switch {
	case err == nil:
		return chaos.OK, nil
	case slices.Contains(refusals, rpc.CodeOf(err)):
		return chaos.Failed, err
	}
	return chaos.Unknown, err
}

// retry is rpc.Retry, with its jitter from the seed.
func retry(ctx context.Context, random *rand.Rand, do func(context.Context) error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 333*time.Millisecond) {
		err := do(ctx)
		if err == nil || !rpc.Retryable(err) || sleep(ctx, pause/2+time.Duration(random.Int64N(int64(pause)))) != nil {
			return err
		}
	}
}

func (c *user) start(random *rand.Rand, via *node, id, policy string, timeout time.Duration) {
	ended := c.sim.history.Invoke(chaos.Event{What: chaos.Run, Via: via.name, Instance: id, Policy: policy})
	spec := &pb.InstanceSpec{
		Name: fmt.Sprintf("client%d", c.number), ModuleHash: c.sim.module, MemoryLimitBytes: 1 << 20,
		RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS},
	}
	if policy == "never" {
		spec.RestartPolicy.PolicyType = pb.PolicyType_POLICY_TYPE_NEVER
	}
	on := ""
	phase, err := c.attempt(random, timeout, func(ctx context.Context) error {
		resp, err := pb.NewControlPlaneServiceClient(c.sim.ask(via)).StartInstance(ctx, &pb.StartInstanceRequest{Spec: spec, InstanceIds: []string{id}})
		if err == nil && len(resp.GetInstances()) == 0 {
			return rpc.Errorf(rpc.Code(resp.GetFailures()[0].GetErrorCode()), "%s", resp.GetFailures()[0].GetMessage())
		}
		if err == nil {
			on = resp.GetInstances()[0].GetNodeName()
		}
		return err
	})
	ended(phase, on, err)
	if phase != chaos.Failed {
		c.mine = append(c.mine, id)
	}
}

// stop asks to stop an instance, which stays the client's until it is told that it is.
func (c *user) stop(random *rand.Rand, via *node, which int, timeout time.Duration) {
	id := c.mine[which]
	ended := c.sim.history.Invoke(chaos.Event{What: chaos.Stop, Via: via.name, Instance: id})
	phase, err := c.attempt(random, timeout, func(ctx context.Context) error {
		_, err := pb.NewControlPlaneServiceClient(c.sim.ask(via)).StopInstance(ctx, &pb.StopInstanceRequest{Refs: []string{id}})
		return err
	})
	ended(phase, "", err)
	if phase != chaos.Unknown {
		c.mine = slices.Delete(c.mine, which, which+1)
	}
}

// maintain drains one node after the other, and takes each drain back.
func (l *load) maintain(ctx context.Context, random *rand.Rand) {
	for think(ctx, random) {
		via, n := l.any(random), l.any(random)
		l.drain(random, via, n, false)
		for !l.drain(random, via, n, true) {
			if !think(ctx, random) {
				break // all are resumed in the end
			}
			via = l.any(random)
		}
	}
}

func (l *load) drain(random *rand.Rand, via, n *node, resume bool) bool {
	what := chaos.Drain
	if resume {
		what = chaos.Resume
	}
	ended := l.sim.history.Invoke(chaos.Event{What: what, Via: via.name, Node: n.name})
	phase, err := l.attempt(random, 10*time.Second, func(ctx context.Context) error {
		_, err := pb.NewControlPlaneServiceClient(l.sim.ask(via)).DrainNode(ctx, &pb.DrainNodeRequest{Node: n.name, Resume: resume})
		return err
	})
	ended(phase, "", err)
	return phase == chaos.OK
}

// resumeAll takes back every drain, whatever became of the client that asked for it.
func (l *load) resumeAll(ctx context.Context) error {
	random := rand.New(rand.NewPCG(l.sim.Seed, 1))
	for _, n := range l.sim.nodes {
		end := time.Now().Add(formsWithin)
		for !l.drain(random, n, n, true) {
			if time.Now().After(end) {
				return fmt.Errorf("%s can't be resumed within %s", n.name, formsWithin)
			}
			if err := sleep(ctx, time.Second); err != nil {
				return err
			}
		}
	}
	return nil
}
