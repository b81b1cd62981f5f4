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

	"github.com/wasmatrix/wasmatrix/e2e/rig"
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
	report(b, "the same with it: more by", took["Journal"]-took["NoJournal"], 0, "")
	report(b, "one write and sync on this machine's disk, p50", b.syncTime(b.TempDir()), 0, "")
}

// slowJournal measures what a journal adds to a start as a program sees it, on disks that take as long for a sync as was thought of
// when that was promised. What is compared has its journal in memory, where a sync takes nothing.
func slowJournal(b *bench) {
	memory, slow := b.inMemory(), b.slowDiskOf(time.Millisecond)
	var none, some []time.Duration
	for n := range 3 { // by turns, for a machine has its moods
		turn := fmt.Sprint(n)
		none = append(none, b.startsOn(filepath.Join(memory, turn))...)
		some = append(some, b.startsOn(filepath.Join(slow, turn))...)
	}
	report(b, "one write and sync on a slow disk, p50", b.syncTime(slow), 0, "")
	report(b, "start of a cached 156 KB module through another node, data in memory, p50", quantile(none, 0.5), 0, "")
	report(b, "the same with data on slow disks: more by", quantile(some, 0.5)-quantile(none, 0.5), time.Millisecond, "")
}

// startsOn returns what starts took through a node that does not lead, in a cluster that keeps its data below dir.
func (b *bench) startsOn(dir string) []time.Duration {
	hosts := make([]rig.Host, 3)
	for i := range hosts {
		hosts[i].DataDir = filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(hosts[i].DataDir, 0o700); err != nil {
			b.Fatal(err)
		}
	}
	c := b.product.FormOn(b, hosts)
	b.threeVoters(c)
	hash := b.warm(c, b.small())
	client := b.dial(c.Followers()[0])
	var took []time.Duration
	for range 300 {
		began := time.Now()
		b.start(client, hash, 1)
		took = append(took, time.Since(began))
		settle(5 * time.Millisecond) // what a start leaves to be written is not the next one's
	}
	for _, n := range c.Nodes() {
		n.Kill()
	}
	return took
}

// syncTime returns what appending a small record to a file there and syncing it takes.
func (b *bench) syncTime(dir string) time.Duration {
	file, err := os.Create(filepath.Join(dir, "sync"))
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
		settle(2 * time.Millisecond) // as starts come: not one after the other
	}
	if err := file.Close(); err != nil {
		b.Fatal(err)
	}
	return quantile(took, 0.5)
}

// inMemory returns a directory that is on no disk, and lasts until the end of the measurement.
func (b *bench) inMemory() string {
	dir, err := os.MkdirTemp("/dev/shm", "wasmatrix-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
