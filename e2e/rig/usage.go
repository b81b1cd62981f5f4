package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The unit of CPU times in /proc, which Linux fixes for user space (man 5 proc).
const clockTick = time.Second / 100

// RSS returns the process's resident memory in bytes, as /proc has it.
func (n *Node) RSS() (uint64, error) {
	fields, err := n.proc("statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}

// CPUTime returns the CPU time that the process has used, as /proc has it.
func (n *Node) CPUTime() (time.Duration, error) {
	fields, err := n.proc("stat")
	if err != nil {
		return 0, err
	}
	// utime and stime; the process's name, the second field, has no space.
	var ticks int64
	for _, field := range fields[13:15] {
		t, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += t
	}
	return time.Duration(ticks) * clockTick, nil
}

func (n *Node) proc(file string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID()), file))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(raw))
	if want := map[string]int{"stat": 20, "statm": 2}[file]; len(fields) < want {
		return nil, fmt.Errorf("odd %s of %s: %q", file, n.Name, raw)
	}
	return fields, nil
}
