package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// protocol is the version of what nodes say to each other. Nodes of another one are refused.
const protocol = 1

// Config is what a node tells its cluster part.
type Config struct {
	NodeID   string // a UUID, kept for ever
	NodeName string // unique in the cluster
	Version  string // of the binary
	DataDir  string // where the log, the snapshots and the known peers are kept

	Bind       string // the IP to listen on
	Advertise  string // the IP that others dial
	GossipPort int
	RPCPort    int
	HTTPPort   int
	// Where the node's messaging server takes clients, and its peers; 0 where it has none.
	NATSPort      int
	NATSRoutePort int

	// Gossip addresses of any members. With none, no state and no BootstrapExpect, the node founds a
	// cluster.
	Join []string
	// How many nodes found the cluster together; 0 when one does alone.
	BootstrapExpect int
	// What to call the cluster if this node founds it; empty for the default.
	ClusterName string
	// How many Raft voters to keep while this node leads; odd. Default 3.
	Voters int
	// How soon gossip notices that a node is gone. Default ProfileLAN.
	GossipProfile string
	// Stretches every timeout below, for slow machines and far networks. Default 1.
	TimingMultiplier float64

	Log        *slog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Gossip profiles. Nodes of one cluster may differ: each counts by its own.
const (
	// ProfileLAN notices a death in some three seconds, and bears pauses of a second and more.
	ProfileLAN = "lan"
	// ProfileLocal notices one in about one second. It is for hosts side by side that are not overcommitted: what
	// pauses for a second looks dead.
	ProfileLocal = "local"
)

// StreamLayer carries Raft's connections, and can cut them all.
type StreamLayer interface {
	raft.StreamLayer
	// Cut closes all connections and refuses new ones until Restore.
	Cut()
	Restore()
}

func (c Config) withDefaults() Config {
	if c.Voters == 0 {
		c.Voters = 3
	}
	if c.GossipProfile == "" {
		c.GossipProfile = ProfileLAN
	}
	if c.TimingMultiplier == 0 {
		c.TimingMultiplier = 1
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate says what can't work.
func (c Config) Validate() error {
	switch {
	case c.NodeID == "" || c.NodeName == "":
		return errors.New("a node needs an id and a name")
	case c.Voters%2 == 0:
		return fmt.Errorf("%d voters: want an odd number", c.Voters)
	case len(c.NodeName) > 64:
		return fmt.Errorf("node name %q is longer than 64 characters", c.NodeName)
	case c.GossipProfile != "" && c.GossipProfile != ProfileLAN && c.GossipProfile != ProfileLocal:
		return fmt.Errorf("gossip profile %q: want lan or local", c.GossipProfile)
	}
	return nil
}

// timing is every duration that TimingMultiplier stretches. Raft's were chosen by measuring:
// docs/decisions/002-timeouts.md.
type timing struct {
	probeInterval, probeTimeout time.Duration
	// How often news of others are passed on; this node's own are at once. Not stretched: it costs what it costs, and less where
	// probes come at the same time.
	gossipInterval      time.Duration
	heartbeat, election time.Duration
	lease, commit       time.Duration
	// How long a leader rests between heartbeats, which it sends to all voters at once.
	beat time.Duration
	// Ten to five times as long as it rests if nobody has it send any: longer than beat, and shorter than heartbeat.
	leaderPace time.Duration
	// How long one write of the log may take before this node's Raft traffic is cut.
	diskHang time.Duration
	// How long a node must be alive before it becomes a voter, and dead before it stops being one.
	settle time.Duration
}

func (c Config) timing() timing {
	x := func(d time.Duration) time.Duration { return time.Duration(float64(d) * c.TimingMultiplier) }
	t := timing{
		probeInterval:  x(500 * time.Millisecond),
		probeTimeout:   x(200 * time.Millisecond),
		gossipInterval: 250 * time.Millisecond,
		heartbeat:      x(500 * time.Millisecond),
		election:       x(500 * time.Millisecond),
		lease:          x(500 * time.Millisecond),
		commit:         x(2 * time.Second),
		beat:           x(125 * time.Millisecond),
		leaderPace:     x(1500 * time.Millisecond),
		diskHang:       x(5 * time.Second),
		settle:         x(2 * time.Second),
	}
	if c.GossipProfile == ProfileLocal {
		t.probeInterval, t.probeTimeout = x(200*time.Millisecond), x(100*time.Millisecond)
		t.gossipInterval = 100 * time.Millisecond
	}
	return t
}
