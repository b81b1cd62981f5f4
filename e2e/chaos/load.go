package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

const (
	// How often a guest prints.
	pulseEvery = 500 * time.Millisecond
	// What each guest may have: its memory is told from everything else in a process by being a multiple.
	guestMemory = 3 << 20
	// How many instances a client keeps at most.
	keeps = 8
	// How long a client thinks between two commands, at most.
	thinks = 600 * time.Millisecond
	// How long a command may go on after its --timeout before it is given up.
	patience = 15 * time.Second
)

// load is the clients of a storm. Each starts and stops instances of its own, so that what it asked of
// one instance has an order.
type load struct {
	field   *field
	seed    uint64
	module  string
	timeout time.Duration // of a command
	clients []*client
}

// client is one user.
type client struct {
	*load

	number int
	mine   []string // instances that may run and that it has not stopped
}

func newLoad(f *field, seed uint64, module string, clients int, timeout time.Duration) *load {
	l := &load{field: f, seed: seed, module: module, timeout: timeout}
	for i := range clients {
		l.clients = append(l.clients, &client{load: l, number: i + 1})
	}
	return l
}

// during runs the clients until ctx ends, sees through what has begun, and takes back every drain.
func (l *load) during(ctx context.Context, round int) {
	var work sync.WaitGroup
	for _, c := range l.clients {
		random := rand.New(rand.NewPCG(l.seed, uint64(round)<<32|uint64(c.number)))
		work.Go(func() { c.run(ctx, random) })
	}
	random := rand.New(rand.NewPCG(l.seed, uint64(round)<<32))
	if random.IntN(2) == 0 {
		work.Go(func() { l.maintain(ctx, random) })
	}
	work.Wait()
}

// run starts and stops, through any node.
func (c *client) run(ctx context.Context, random *rand.Rand) {
	for think(ctx, random) {
		via := c.field.nodes[random.IntN(len(c.field.nodes))]
		policy := "always"
		if random.IntN(5) == 0 {
			policy = "never"
		}
		if len(c.mine) < 2 || len(c.mine) < keeps && random.IntN(5) < 3 {
			c.start(via, policy)
		} else {
			c.stop(via, random.IntN(len(c.mine)))
		}
	}
}

func (c *client) start(via *rig.Node, policy string) {
	id := uuid.Must(uuid.NewV7()).String()
	ended := c.field.history.Invoke(Event{What: Run, Via: via.Name, Instance: id, Policy: policy})
	var started []rig.Instance
	phase, err := c.ask(via, &started, "run", "--name", fmt.Sprintf("client%d", c.number), "--instance-id", id, "--restart", policy,
		"--memory", fmt.Sprintf("%dMiB", guestMemory>>20), c.module, "--", fmt.Sprint(pulseEvery.Milliseconds()))
	node := ""
	if phase == OK && len(started) == 1 {
		node = started[0].NodeName
	}
	ended(phase, node, err)
	if phase != Failed {
		c.mine = append(c.mine, id)
	}
}

// stop asks to stop an instance, which stays the client's until it is told that it is.
func (c *client) stop(via *rig.Node, which int) {
	id := c.mine[which]
	ended := c.field.history.Invoke(Event{What: Stop, Via: via.Name, Instance: id})
	var stopped []rig.Instance
	phase, err := c.ask(via, &stopped, "stop", id)
	ended(phase, "", err)
	if phase != Unknown {
		c.mine = slices.Delete(c.mine, which, which+1)
	}
}

// maintain drains one node after the other, and takes each drain back.
func (l *load) maintain(ctx context.Context, random *rand.Rand) {
	for think(ctx, random) {
		via, node := l.field.nodes[random.IntN(len(l.field.nodes))], l.field.nodes[random.IntN(len(l.field.nodes))]
		l.node(Drain, via, node)
		for !l.node(Resume, via, node) {
			if !think(ctx, random) {
				break // the storm resumes all
			}
			via = l.field.nodes[random.IntN(len(l.field.nodes))]
		}
	}
}

// node drains or resumes a node, and says whether that was done.
func (l *load) node(verb string, via, node *rig.Node) bool {
	ended := l.field.history.Invoke(Event{What: verb, Via: via.Name, Node: node.Name})
	phase, err := l.ask(via, nil, "node", verb, node.Name)
	ended(phase, "", err)
	return phase == OK
}

// ask runs a command as a user would, and says whether it was done, was refused, or may have been done.
func (l *load) ask(via *rig.Node, into any, words ...string) (string, error) {
	// Not the load's context: what has begun is seen through.
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout+patience)
	defer cancel()
	verbs := 1
	if words[0] == "node" {
		verbs = 2
	}
	cmd := via.Command(ctx, slices.Insert(words, verbs, "--timeout", l.timeout.String())...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && into == nil:
		return OK, nil
	case err == nil:
		if err := json.Unmarshal(stdout.Bytes(), into); err != nil {
			return Unknown, fmt.Errorf("%s: %w in %s", words[0], err, stdout.String())
		}
		return OK, nil
	case ctx.Err() != nil:
		return Unknown, fmt.Errorf("%s did not end within %s of its timeout", words[0], patience)
	case !errors.As(err, &exit):
		return Failed, fmt.Errorf("%s: %w", words[0], err)
	}
	result := rig.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: exit.ExitCode()}
	if e := result.Reported(); e != nil && slices.Contains(refusals, e.Code) {
		return Failed, e
	}
	return Unknown, errors.New(strings.TrimSpace(result.Stderr))
}

// refusals are the codes of errors after which nothing was done, at least by the attempt that got it.
var refusals = []string{"INVALID_REQUEST", "INSTANCE_NOT_FOUND", "NODE_NOT_FOUND", "MODULE_NOT_FOUND", "RESOURCE_EXHAUSTED"}

// think waits as a user does between two commands, and says whether there is to be another one.
func think(ctx context.Context, random *rand.Rand) bool {
	return waitUntil(ctx, time.Now().Add(time.Duration(random.Int64N(int64(thinks))))) == nil
}
