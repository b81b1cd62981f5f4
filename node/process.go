package node

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"

	"github.com/wasmatrix/wasmatrix/agent"
)

// process returns what this process uses.
func process() agent.Process { return agent.Process{CPU: cpuTime(), Resident: resident()} }

// resident returns how much memory the process has: as the operating system says, or where there is no /proc what Go itself
// has taken and not given back.
func resident() uint64 {
	if raw, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := bytes.Fields(raw); len(fields) > 1 {
			if pages, err := strconv.ParseUint(string(fields[1]), 10, 64); err == nil {
				return pages * uint64(os.Getpagesize())
			}
		}
	}
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
