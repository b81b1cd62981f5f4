//go:build unix

package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the time of processors that the process has used, for itself and in the kernel.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil { // only for what is no process
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
