package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine describes where and when the figures were taken.
func machine() string {
	return fmt.Sprintf("%s, %s, %d cores, %s of memory, %s/%s %s, %s, commit %s",
		time.Now().Format(time.DateOnly), procValue("/proc/cpuinfo", "model name"), runtime.NumCPU(), procValue("/proc/meminfo", "MemTotal"),
		runtime.GOOS, runtime.GOARCH, output("uname", "-r"), runtime.Version(), output("git", "rev-parse", "--short=12", "HEAD"))
}

// procValue returns the value of a line such as "model name : X" in a file of /proc.
func procValue(file, name string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "unknown " + name
	}
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown " + name
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
