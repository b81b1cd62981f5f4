package operator

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// hostFiles say what the kernel lets the process have, and what it has taken. None of them has its environment or arguments.
var hostFiles = []string{
	"/proc/sys/kernel/osrelease", "/proc/loadavg", "/proc/meminfo", "/proc/self/limits", "/proc/self/status", "/proc/self/cgroup",
	"/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory",
}

// writeHost writes what the host is and has, as far as it tells.
func writeHost(w io.Writer, dataDir string) error {
	fmt.Fprintf(w, "%s/%s, %s, %d processors, GOMAXPROCS %d, %d goroutines\n", runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.NumGoroutine())
	var fs unix.Statfs_t
	err := unix.Statfs(dataDir, &fs)
	if err == nil {
		block := uint64(fs.Bsize)
		fmt.Fprintf(w, "%s: %d of %d bytes and %d of %d files free\n", dataDir, fs.Bavail*block, fs.Blocks*block, fs.Ffree, fs.Files)
	}
	for _, file := range hostFiles {
		raw, readErr := os.ReadFile(file)
		if errors.Is(readErr, os.ErrNotExist) || errors.Is(readErr, unix.EOPNOTSUPP) { // another kernel or cgroup
			continue
		}
		err = errors.Join(err, readErr)
		fmt.Fprintf(w, "\n== %s\n%s", file, raw)
	}
	return err
}
