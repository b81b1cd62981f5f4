//go:build !linux

package cli

import (
	"fmt"
	"runtime"
)

// hostMemory is known on Linux only, where clusters run.
func hostMemory() (uint64, error) { return 0, fmt.Errorf("unknown on %s", runtime.GOOS) }
