package rpc

import (
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

var goroutineID = regexp.MustCompile(`^goroutine (\d+) `)

// goroutines returns the stacks of all goroutines by id.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for _, stack := range strings.Split(string(buf), "\n\n") {
		if id := goroutineID.FindStringSubmatch(stack); id != nil {
			stacks[id[1]] = stack
		}
	}
	return stacks
}

// noLeaks fails the test if goroutines that were not there now are still there when all its other
// cleanups have run. Call it first.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			left = left[:0]
			for id, stack := range goroutines() {
				// The tests' own machinery comes and goes by itself.
				if before[id] == "" && !strings.Contains(stack, "testing.(*") && !strings.Contains(stack, "runtime.goroutines") {
					left = append(left, stack)
				}
			}
			if len(left) == 0 {
				return
			}
		}
		t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}
