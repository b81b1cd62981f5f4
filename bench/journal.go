package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

var startResult = regexp.MustCompile(`(?m)^BenchmarkStart/(\w+?)(?:-\d+)?\s.*?([\d.]+) p50-ns`)

// journalCost runs the agent's own benchmark of a start, with and without a journal, and measures what this machine's disk
// takes for the sync that each start waits for.
func journalCost(b *bench) {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkStart$", "-benchtime", "500x", "./agent")
	cmd.Dir = b.root
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	took := map[string]time.Duration{}
	for _, m := range startResult.FindAllSubmatch(out, -1) {
		nanoseconds, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			b.Fatal(err)
		}
		took[string(m[1])] = time.Duration(nanoseconds)
	}
	if len(took) != 2 {
		b.Fatalf("want two results in:\n%s", out)
	}
	report(b, "start on one agent without a journal, p50", took["NoJournal"], 0, "")
	report(b, "the same with it: more by", took["Journal"]-took["NoJournal"], time.Millisecond, "")
	report(b, "one write and sync on this machine's disk, p50", b.syncTime(), 0, "")
}

// syncTime returns what appending a small record and syncing it takes.
func (b *bench) syncTime() time.Duration {
	file, err := os.Create(filepath.Join(b.TempDir(), "sync"))
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for range 200 {
		began := time.Now()
		_, err := file.Write(make([]byte, 512))
		if err := errors.Join(err, file.Sync()); err != nil {
			b.Fatal(fmt.Errorf("sync: %w", err))
		}
		took = append(took, time.Since(began))
	}
	if err := file.Close(); err != nil {
		b.Fatal(err)
	}
	return quantile(took, 0.5)
}
