//go:build !linux

package operator

import (
	"fmt"
	"io"
	"runtime"
)

// writeHost writes what Go knows of the host.
func writeHost(w io.Writer, dataDir string) error {
	_, err := fmt.Fprintf(w, "%s/%s, %s, %d processors, GOMAXPROCS %d, %d goroutines, data in %s\n", runtime.GOOS, runtime.GOARCH, runtime.Version(),
		runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.NumGoroutine(), dataDir)
	return err
}
