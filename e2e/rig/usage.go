package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RSS returns the process's resident memory in bytes, as /proc has it.
func (n *Node) RSS() (uint64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID()), "statm"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0, fmt.Errorf("odd statm of %s: %q", n.Name, raw)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}

// CPUTime returns the CPU time that the process's threads have used, as the scheduler counted it: the
// ticks of /proc/PID/stat are samples, and far off for a process that wakes up often and briefly.
func (n *Node) CPUTime() (time.Duration, error) {
	files, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(n.PID()), "task", "*", "schedstat"))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, fmt.Errorf("%s has no threads that /proc knows of", n.Name)
	}
	var used time.Duration
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that just ended
		}
		if err != nil {
			return 0, err
		}
		var ns int64
		if _, err := fmt.Sscan(string(raw), &ns); err != nil {
			return 0, fmt.Errorf("odd schedstat of %s: %q", n.Name, raw)
		}
		used += time.Duration(ns)
	}
	return used, nil
}

// Metric returns the value of one series of the node's metrics, such as
// wasmatrix_instances{status="running"}; 0 where the node does not have it.
func (n *Node) Metric(series string) (value float64, err error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(n.HTTP() + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, lines.Err()
}
