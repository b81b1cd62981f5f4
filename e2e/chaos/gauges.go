package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// goroutines returns how many goroutines a node has, by its own word.
func (f *field) goroutines(ctx context.Context, n *rig.Node) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP()+"/metrics", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	resp, err := f.links[n].http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(value)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	return -1, nil
}

// openFiles returns how many files and sockets a node has open, or -1 where /proc does not say.
func openFiles(n *rig.Node) int {
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(n.PID()), "fd"))
	if err != nil {
		return -1
	}
	return len(open)
}

// dataBytes returns how much a node keeps on disk.
func dataBytes(n *rig.Node) int64 {
	var size int64
	err := filepath.WalkDir(n.DataDir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		return -1
	}
	return size
}

// guestsOf counts the guests in a node's process by the memory that is reserved for each: the only
// mappings without a claim on swap ("nr"), and all of one size. -1 where that can't be told: the race
// detector has such mappings of its own.
func guestsOf(n *rig.Node) int {
	if rig.Race {
		return -1
	}
	file, err := os.Open(filepath.Join("/proc", strconv.Itoa(n.PID()), "smaps"))
	if err != nil {
		return -1
	}
	defer file.Close()
	var size, total int64
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 3 && fields[0] == "Size:":
			if size, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
				return -1
			}
		case len(fields) > 1 && fields[0] == "VmFlags:" && strings.Contains(lines.Text(), " nr "):
			total += size << 10
		}
	}
	if lines.Err() != nil || total%guestMemory != 0 {
		return -1
	}
	return int(total / guestMemory)
}

func notFound(err error) bool { return status.Code(err) == codes.NotFound }
