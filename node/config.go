package node

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/hashicorp/go-sockaddr"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/logging"
	"github.com/wasmatrix/wasmatrix/mirror"
	"github.com/wasmatrix/wasmatrix/notify"
)

// Config is all that a node is told at its start. The command line completes it with defaults.
type Config struct {
	// The node's name, unique in the cluster.
	NodeName string
	// Everything the node keeps.
	DataDir string
	// The listen address of all ports, an IP.
	Bind string
	// The IP that others dial; empty to derive it from Bind.
	Advertise string

	GossipPort int
	RPCPort    int
	HTTPPort   int
	// Of the node's messaging server: for NATS clients, and for the servers of other nodes.
	NATSPort      int
	NATSRoutePort int

	// Gossip addresses of any members. With none, and an empty data dir, the node founds a cluster.
	Join []string
	// How many nodes found the cluster together; 0 when one does alone.
	BootstrapExpect int
	// What to call the cluster if this node founds it; empty for the default.
	ClusterName string
	// How many Raft voters the cluster keeps while this node leads; odd.
	Voters int
	// How soon gossip notices a death: GossipLAN or GossipLocal.
	GossipProfile string
	// Stretches all timeouts of gossip and Raft; 1 is normal.
	TimingMultiplier float64

	Tunable
	// Brings what is changed of it while the node runs; nil: nothing is.
	Changes <-chan Tunable

	// Whether Go gets processors beyond the cores once guests run.
	RaiseProcessors bool
	// Where a copy of who is here and which providers there are is kept while this node leads; without endpoints nowhere.
	Etcd mirror.Etcd
	// Who is told by HTTP what happens while this node leads.
	EventWebhooks notify.Webhooks

	Version string
	Commit  string       // of the source that the binary was built from
	Log     *slog.Logger // nil: that of Logging
	// What Log leads to, for its level and its last lines; nil: nowhere.
	Logging *logging.Log
	// Writes the settings that hold now, for a bug report; nil: nobody knows them.
	Settings func(io.Writer) error
	// Called once, when the node is a registered member of a cluster.
	Ready func(Info)
	// For whoever watches over the process; the zero value for nobody.
	Pulse Pulse
}

// What --gossip-profile takes.
const (
	GossipLAN   = cluster.ProfileLAN
	GossipLocal = cluster.ProfileLocal
)

// Info tells whoever started a node where it is.
type Info struct {
	NodeID    string
	NodeName  string
	ClusterID string
	RPCAddr   string
	HTTPAddr  string
	Gossip    string
}

// Validate says what is wrong with a configuration, in terms of the flags that set it.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(fact.ValidName(c.NodeName), "--name %q: want 1 to 64 letters, digits, dots, dashes or underscores", c.NodeName)
	check(c.ClusterName == "" || fact.ValidName(c.ClusterName), "--cluster-name %q: want 1 to 64 letters, digits, dots, dashes or underscores", c.ClusterName)
	check(c.DataDir != "", "--data-dir is empty")
	check(net.ParseIP(c.Bind) != nil, "--bind %q is not an IP address", c.Bind)
	check(c.Advertise == "" || net.ParseIP(c.Advertise) != nil, "--advertise %q is not an IP address", c.Advertise)
	flagOf := map[int]string{}
	for _, p := range []struct {
		flag string
		port int
	}{{"--gossip-port", c.GossipPort}, {"--rpc-port", c.RPCPort}, {"--http-port", c.HTTPPort}, {"--nats-port", c.NATSPort}, {"--nats-route-port", c.NATSRoutePort}} {
		check(p.port > 0 && p.port < 65536, "%s %d: want from 1 to 65535", p.flag, p.port)
		check(flagOf[p.port] == "", "%s and %s are both %d: they must differ", flagOf[p.port], p.flag, p.port)
		flagOf[p.port] = p.flag
	}
	check(c.Voters > 0 && c.Voters%2 == 1, "--voters %d: want an odd number", c.Voters)
	check(c.BootstrapExpect >= 0, "--bootstrap-expect %d is negative", c.BootstrapExpect)
	check(c.GossipProfile == GossipLAN || c.GossipProfile == GossipLocal, "--gossip-profile %q: want lan or local", c.GossipProfile)
	check(c.TimingMultiplier >= 0.1 && c.TimingMultiplier <= 100, "--timing-multiplier %v: want from 0.1 to 100", c.TimingMultiplier)
	check(c.MaxInstances > 0, "--max-instances %d: want at least 1", c.MaxInstances)
	check(c.MaxCPU >= 0, "--max-cpu %d: want at least 1 millicore", c.MaxCPU)
	check(c.MaxMemory >= fact.PageBytes, "--max-memory %d: want at least 64KiB", c.MaxMemory)
	check(c.NodeLossGrace > 0, "--node-loss-grace %s: want more than nothing", c.NodeLossGrace)
	check(c.DrainTimeout > 0, "--drain-timeout %s: want more than nothing", c.DrainTimeout)
	check(c.Pulse.Every == 0 || c.Pulse.Every > 0 && c.Pulse.Beat != nil && c.Pulse.Leaving != nil, "a pulse without somebody who takes it")
	errs = append(errs, c.Etcd.Validate(), c.EventWebhooks.Validate())
	return errors.Join(errs...)
}

// advertised returns the IP that others dial.
func (c Config) advertised() (string, error) {
	if c.Advertise != "" {
		return c.Advertise, nil
	}
	if ip := net.ParseIP(c.Bind); !ip.IsUnspecified() {
		return c.Bind, nil
	}
	private, err := sockaddr.GetPrivateIP()
	if err != nil {
		return "", fmt.Errorf("look for a private address to advertise: %w", err)
	}
	if private == "" {
		return "", fmt.Errorf("--bind %s listens everywhere, and this host has no private address to tell others: give --advertise", c.Bind)
	}
	return private, nil
}
