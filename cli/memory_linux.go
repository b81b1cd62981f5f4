package cli

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hostMemory returns how many bytes of memory the node may use: the host's, or the limit of the
// container that it is in.
func hostMemory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return min(uint64(info.Totalram)*uint64(info.Unit), containerLimit()), nil //nolint:unconvert // 32 bits on some hosts
}

// containerLimit reads the limit of control groups, version 2, as a container sees its own.
func containerLimit() uint64 {
	raw, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return math.MaxUint64
	}
	limit, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil { // "max"
		return math.MaxUint64
	}
	return limit
}
