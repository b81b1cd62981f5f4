package rig

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// networks counts the networks of this process, whose namespaces are named by it.
var networks atomic.Uint32

// Network is a set of hosts that see each other through a router of their own. Each of them, and the
// router, is a network namespace, so networks share no address with each other or with the machine.
type Network struct {
	t      T
	router string
	hosts  []Host
	made   []string // the namespaces
	cut    []string // the router's rules, as ip's words behind "rule add"
	detour *detour  // of what is slowed; nil before the first is
}

// NewNetwork returns a network of that many hosts. It lasts as long as the test.
//
// The error says why this process may not make namespaces; whatever else fails ends the test.
func NewNetwork(t T, hosts int) (*Network, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("a network of namespaces takes root, and this is user %d", os.Geteuid())
	}
	sweep(t)
	name := fmt.Sprintf("wasmatrix-%d-%d-", os.Getpid(), networks.Add(1))
	n := &Network{t: t, router: name + "router"}
	t.Cleanup(n.end)
	if err := n.namespace(n.router); err != nil {
		return nil, err
	}
	for i := 1; i <= hosts; i++ {
		host := fmt.Sprintf("%shost%d", name, i)
		if err := n.namespace(host); err != nil {
			return nil, err
		}
		n.wire(host, i)
	}
	// Through /proc, for not every machine with ip has sysctl.
	n.must(ip("", "netns", "exec", n.router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"))
	return n, nil
}

// Hosts returns the hosts, in the order in which they were made.
func (n *Network) Hosts() []Host { return n.hosts }

// Cut drops, from now on, everything that a node of one group sends to a node of the other. Nobody is
// told: connections stay open and go silent, as behind a switch that lost its uplink.
func (n *Network) Cut(group, other []*Node) {
	n.t.Helper()
	var rules []string
	for _, a := range group {
		for _, b := range other {
			rules = append(rules, dropped(a, b), dropped(b, a))
		}
	}
	n.drop(rules)
}

// Heal undoes every cut.
func (n *Network) Heal() {
	n.t.Helper()
	n.rules("rule del ", n.cut)
	n.cut = nil
}

// drop adds those of the rules that are not there yet.
func (n *Network) drop(rules []string) {
	n.t.Helper()
	rules = slices.DeleteFunc(rules, func(rule string) bool { return slices.Contains(n.cut, rule) })
	n.rules("rule add ", rules)
	n.cut = append(n.cut, rules...)
}

// dropped is the rule that drops what one node sends to another.
func dropped(from, to *Node) string {
	return cutRule + "from " + from.IP + " to " + to.IP + " blackhole"
}

func (n *Network) rules(verb string, rules []string) {
	n.t.Helper()
	if len(rules) == 0 {
		return
	}
	n.must(ip(verb+strings.Join(rules, "\n"+verb), "-n", n.router, "-batch", "-"))
}

// wire gives a host a subnet, with the router at its other end.
func (n *Network) wire(host string, i int) {
	n.t.Helper()
	subnet, port := fmt.Sprintf("10.87.%d.", i), fmt.Sprintf("host%d", i)
	n.must(ip("", "link", "add", "name", "uplink", "netns", host, "type", "veth", "peer", "name", port, "netns", n.router))
	n.must(ip("addr add "+subnet+"1/24 dev "+port+"\nlink set "+port+" up", "-n", n.router, "-batch", "-"))
	n.must(ip("link set lo up\naddr add "+subnet+"2/24 dev uplink\nlink set uplink up\nroute add default via "+subnet+"1",
		"-n", host, "-batch", "-"))
	// ip becomes the command that it is given, so a process id, and what is sent to it, is the command's.
	n.hosts = append(n.hosts, Host{IP: subnet + "2", enter: []string{"ip", "netns", "exec", host}})
}

func (n *Network) namespace(name string) error {
	if err := ip("", "netns", "add", name); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	n.made = append(n.made, name)
	return nil
}

func (n *Network) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// end takes the namespaces away, and what wires them goes with them.
func (n *Network) end() {
	for _, name := range n.made {
		if err := ip("", "netns", "delete", name); err != nil {
			n.t.Errorf("%v", err)
		}
	}
}

// sweep takes away the namespaces of test processes that were killed before they could.
func sweep(t T) {
	left, err := filepath.Glob("/run/netns/wasmatrix-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		name := filepath.Base(path)
		if !orphaned(name) {
			continue
		}
		if err := ip("", "netns", "delete", name); err != nil {
			t.Logf("%v", err) // another process may sweep, too
		}
	}
}

// orphaned says whether something is named after a test process that is no more.
func orphaned(name string) bool {
	var pid int
	_, err := fmt.Sscanf(name, "wasmatrix-%d-", &pid)
	return err == nil && syscall.Kill(pid, 0) == syscall.ESRCH
}

// ip runs ip, and gives it these lines to read.
func ip(lines string, words ...string) error {
	cmd := exec.Command("ip", words...)
	cmd.Stdin = strings.NewReader(lines)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(words, " "), err, bytes.TrimSpace(said))
	}
	return nil
}
