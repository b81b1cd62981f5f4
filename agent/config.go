package agent

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Config says who the agent is and what it takes on. A zero field gets its default.
type Config struct {
	// NodeID and NodeName are written into each record. Both are needed.
	NodeID, NodeName string
	// JournalDir is where the agent keeps what runs here, so that a restart finds it. Default: nowhere.
	JournalDir string
	// MaxInstances is how many live instances the agent takes on; further ones are refused.
	// Default 10,000: what 60 KiB each makes of 600 MiB.
	MaxInstances int
	// MaxMemory bounds the sum of the memory limits of live instances, in bytes. Default: no bound.
	MaxMemory uint64
	// MaxCPU bounds the sum of what live instances were promised of the CPU, in millicores. Default: no bound.
	MaxCPU int
	// LogBytes is what the kept output of one instance takes at the most, in bytes with all overhead.
	// Default 1 MiB; at least 4 KiB. Nothing is taken before the first line.
	LogBytes int
	// LogRate and LogBurst bound what an instance may write: bytes a second in the long run, and
	// bytes at once. More is dropped, and a line in the log says so. Defaults 1 MiB and 4 MiB: above
	// what people read and below what would make one guest's flood felt by the others.
	LogRate, LogBurst int
	// StartTimeout bounds the preparation of a start: fetching and compiling the module. Waiting for
	// a turn, when many start at once, doesn't count. Default 30 s.
	StartTimeout time.Duration
	// KeepEnded is how long ended instances stay known. Default an hour.
	KeepEnded time.Duration
	// KeepRecords is how many ended instances stay known, and KeepLogs of how many of them the output
	// is kept. Defaults 1,000 and 100.
	KeepRecords, KeepLogs int
	// KeepModules is how long a module stays that nothing references. Default an hour.
	KeepModules time.Duration
	// Providers carry out what guests ask for beyond computing. Default: none, and guests are told that there are none.
	Providers Providers
	// Process tells what the agent's process uses, for the reports to the voters. Default: they say nothing of it.
	Process func() Process
	// OnLeader, where set, is told when an order shows a newer leader than was known.
	OnLeader func(nodeID, addr string, term uint64)
	// Log is where the agent says what an operator should know. Default: nowhere.
	Log *slog.Logger
	// Tracer begins a trace with each call of a guest. Default: none does.
	Tracer trace.Tracer
	// Registerer takes the agent's metrics. Default: nobody does.
	Registerer prometheus.Registerer
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	switch {
	case c.NodeID == "" || c.NodeName == "":
		return fmt.Errorf("agent: node id %q and name %q: both are needed", c.NodeID, c.NodeName)
	case c.MaxInstances < 0 || c.KeepRecords < 0 || c.KeepLogs < 0:
		return fmt.Errorf("agent: limits of %d instances, %d records, %d logs: none may be negative", c.MaxInstances, c.KeepRecords, c.KeepLogs)
	case c.LogBytes != 0 && c.LogBytes < 4<<10:
		return fmt.Errorf("agent: %d bytes of log: want at least 4096", c.LogBytes)
	case c.LogRate < 0 || c.LogBurst < 0:
		return fmt.Errorf("agent: log rate of %d bytes a second, burst of %d: neither may be negative", c.LogRate, c.LogBurst)
	case c.StartTimeout < 0 || c.KeepEnded < 0 || c.KeepModules < 0:
		return fmt.Errorf("agent: start timeout %s, keeping ended instances for %s and modules for %s: none may be negative", c.StartTimeout, c.KeepEnded, c.KeepModules)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.MaxInstances = orDefault(c.MaxInstances, 10_000)
	c.LogBytes = orDefault(c.LogBytes, 1<<20)
	c.LogRate = orDefault(c.LogRate, 1<<20)
	c.LogBurst = orDefault(c.LogBurst, max(4<<20, c.LogRate))
	c.StartTimeout = orDefault(c.StartTimeout, 30*time.Second)
	c.KeepEnded = orDefault(c.KeepEnded, time.Hour)
	c.KeepRecords = orDefault(c.KeepRecords, 1000)
	c.KeepLogs = orDefault(c.KeepLogs, 100)
	c.KeepModules = orDefault(c.KeepModules, time.Hour)
	if c.Providers == nil {
		c.Providers = noProviders{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
