package replica

import (
	"errors"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a node tells its part of the group.
type Config struct {
	NodeID string // a UUID, kept for ever
	Dir    string // where the log and the snapshots are kept; made when the group is founded

	// OpenStream opens this node's side of the group's connections; each call closes what was opened before.
	OpenStream func() StreamLayer
	// Addr returns where a node serves the group, as gossip has it now; "" where it does not know.
	Addr func(nodeID string) string
	// Stretches every timeout below, for slow machines and far networks. Default 1.
	TimingMultiplier float64

	Log        *slog.Logger
	Registerer prometheus.Registerer // nil for none
}

// StreamLayer carries Raft's connections, and can cut them all.
type StreamLayer interface {
	raft.StreamLayer
	// Cut closes all connections and refuses new ones until Restore.
	Cut()
	Restore()
}

func (c Config) withDefaults() Config {
	if c.TimingMultiplier == 0 {
		c.TimingMultiplier = 1
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Addr == nil {
		c.Addr = func(string) string { return "" }
	}
	return c
}

// Validate says what can't work.
func (c Config) Validate() error {
	if c.NodeID == "" || c.Dir == "" || c.OpenStream == nil {
		return errors.New("a replica needs a node id, a directory and a stream to the others")
	}
	return nil
}

// timing is every duration that TimingMultiplier stretches. Measured: docs/decisions/007-replicated-keys.md.
type timing struct {
	heartbeat, election time.Duration
	lease, commit       time.Duration
	// Ten to five times as long as a leader rests between heartbeats.
	leaderPace time.Duration
	// How long one request between replicas may take.
	io time.Duration
	// How long a replica may take to say in which term it is.
	ask time.Duration
	// How long one write of the log may take before this node's Raft traffic is cut.
	diskHang time.Duration
	// How often a leader looks whether the group is as it is to be, and whether keys have expired.
	look time.Duration
}

func (c Config) timing() timing {
	x := func(d time.Duration) time.Duration { return time.Duration(float64(d) * c.TimingMultiplier) }
	return timing{
		heartbeat:  x(time.Second),
		election:   x(time.Second),
		lease:      x(time.Second),
		commit:     x(5 * time.Second),
		leaderPace: x(2500 * time.Millisecond),
		io:         x(10 * time.Second),
		ask:        x(time.Second),
		diskHang:   x(5 * time.Second),
		look:       x(time.Second),
	}
}

const (
	// Writes that wait for the log, counted in the bytes of their commands and callOverhead for each. Further ones
	// wait for their turn, as long as their context lets them.
	maxPendingBytes = 32 << 20
	callOverhead    = 4 << 10
	// How many entries are kept for those who lag.
	trailingLogs = 512
	// A snapshot is due when the log has grown by so many bytes, or by half of what the store holds: a snapshot
	// writes all of that.
	snapshotBytes = 64 << 20
	snapshotsKept = 2
	// How many entries are kept in memory for the followers, who mostly want the newest.
	cachedLogs = 64
	// How long a change of the log may wait to be taken by the Raft loop.
	enqueueTimeout = 5 * time.Second
	// How long to wait for another process that has the log open.
	lockTimeout = 2 * time.Second
	// How many expired keys one command sweeps away.
	sweepLimit = 1000
)
