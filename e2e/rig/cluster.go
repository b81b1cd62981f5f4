package rig

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// clusters counts the clusters of this process: each has a subnet of its own.
var clusters atomic.Uint32

// Cluster is a set of nodes of one test.
type Cluster struct {
	t       T
	product Product
	dir     string
	subnet  string
	nodes   []*Node
	flags   []string
	env     []string // NAME=VALUE, beside those of the test process
}

// New returns a cluster without nodes. The flags are given to each node that starts.
func (p Product) New(t T, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{
		t: t, product: p, dir: t.TempDir(), flags: flags,
		subnet: freeSubnet(),
	}
	t.Cleanup(c.end)
	return c
}

// freeSubnet returns a subnet of 127.0.0.0/8 that nobody serves on. Two test processes at once rarely share a second octet, two
// clusters of one never a third.
func freeSubnet() string {
	for try := 0; ; try++ {
		subnet := fmt.Sprintf("127.%d.%d", 64+(os.Getpid()+try)%128, clusters.Add(1)%250+1)
		free, err := net.Listen("tcp", subnet+".11:7401")
		if err == nil {
			_ = free.Close()
		}
		if err == nil || try == 10 { // then a node's own error says what is wrong
			return subnet
		}
	}
}

// Setenv gives variables, each NAME=VALUE, to the nodes that start from now on, and to the commands that ask them.
func (c *Cluster) Setenv(vars ...string) { c.env = append(c.env, vars...) }

// Form returns a cluster of that many nodes, n1 first, once all are alive and one of them leads.
// The first founds it, the others join the first.
func (p Product) Form(t T, nodes int, flags ...string) *Cluster {
	t.Helper()
	c := p.New(t, flags...)
	for i := range nodes {
		c.Node(fmt.Sprintf("n%d", i+1))
	}
	c.form()
	return c
}

// FormOn is Form with one node on each of these hosts.
func (p Product) FormOn(t T, hosts []Host, flags ...string) *Cluster {
	t.Helper()
	c := p.New(t, flags...)
	for i, host := range hosts {
		c.NodeOn(fmt.Sprintf("n%d", i+1), host)
	}
	c.form()
	return c
}

func (c *Cluster) form() {
	c.t.Helper()
	for i, n := range c.nodes {
		if i == 0 {
			n.Start()
		} else {
			n.Start("--join", c.nodes[0].IP)
		}
	}
	c.WaitFormed(len(c.nodes))
}

// Node returns a node that does not run yet, on the next address of the cluster's subnet.
func (c *Cluster) Node(name string) *Node {
	return c.NodeOn(name, Host{})
}

// NodeOn returns a node that does not run yet, on that host.
func (c *Cluster) NodeOn(name string, host Host) *Node {
	n := &Node{
		Name: name, IP: cmp.Or(host.IP, c.Address(len(c.nodes)+11)), enter: host.enter, cluster: c, t: c.t,
		DataDir: cmp.Or(host.DataDir, filepath.Join(c.dir, name)), logPath: filepath.Join(c.dir, name+".log"),
	}
	c.nodes = append(c.nodes, n)
	return n
}

// Address returns an address of the cluster's subnet.
func (c *Cluster) Address(host int) string {
	return fmt.Sprintf("%s.%d", c.subnet, host)
}

// Nodes returns all nodes, in the order in which they were made.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Get returns the node of that name.
func (c *Cluster) Get(name string) *Node {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.Name == name {
			return n
		}
	}
	c.t.Fatalf("the test has no node %q", name)
	return nil
}

// Running returns the nodes whose process runs.
func (c *Cluster) Running() []*Node {
	var running []*Node
	for _, n := range c.nodes {
		if n.Runs() {
			running = append(running, n)
		}
	}
	return running
}

// Any returns a running node.
func (c *Cluster) Any() *Node {
	c.t.Helper()
	running := c.Running()
	if len(running) == 0 {
		c.t.Fatal("no node runs")
	}
	return running[0]
}

// WaitFormed waits until every running node sees that many alive members and one leader that has
// finished recovering.
func (c *Cluster) WaitFormed(alive int) Status {
	c.t.Helper()
	var seen Status
	Wait(c.t, fmt.Sprintf("a cluster of %d", alive), 30*time.Second, func() error {
		for _, n := range c.Running() {
			status, err := n.TryStatus()
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", n.Name, err)
			case status.Members.Alive != alive:
				return fmt.Errorf("%s sees %d alive", n.Name, status.Members.Alive)
			case status.Leader.Name == "":
				return fmt.Errorf("%s knows no leader", n.Name)
			case status.Recovering:
				return fmt.Errorf("%s says that the leader is recovering", n.Name)
			}
			seen = status
		}
		return nil
	})
	return seen
}

// Leader returns the node that leads, as any running node says.
func (c *Cluster) Leader() *Node {
	c.t.Helper()
	var name string
	Wait(c.t, "a leader", 20*time.Second, func() error {
		status, err := c.Any().TryStatus()
		if err == nil && status.Leader.Name == "" {
			err = fmt.Errorf("none known")
		}
		name = status.Leader.Name
		return err
	})
	return c.Get(name)
}

// Followers returns the running nodes that do not lead.
func (c *Cluster) Followers() []*Node {
	c.t.Helper()
	leader := c.Leader()
	var others []*Node
	for _, n := range c.Running() {
		if n != leader {
			others = append(others, n)
		}
	}
	return others
}

// end kills what still runs, and shows the logs where something went wrong.
func (c *Cluster) end() {
	for _, n := range c.nodes {
		n.Kill()
	}
	for _, n := range c.nodes {
		if trouble := n.trouble(); trouble != "" {
			c.t.Errorf("%s: %s", n.Name, trouble)
		}
	}
	if !c.t.Failed() {
		return
	}
	for _, n := range c.nodes {
		c.t.Logf("--- the end of the log of %s (%s)\n%s", n.Name, n.IP, n.tail(120))
	}
}
