package main

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// goBench runs benchmarks of a package and returns each metric of each, by "NAME METRIC".
func (b *bench) goBench(room, pattern, benchtime string) map[string]float64 {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", pattern, "-benchtime", benchtime, "./"+room)
	cmd.Dir = b.root
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(words[0], "Benchmark"), "")
		for n := 2; n+1 < len(words); n += 2 {
			if value, err := strconv.ParseFloat(words[n], 64); err == nil {
				found[name+" "+words[n+1]] = value
			}
		}
	}
	return found
}

// processors is what go test puts behind a benchmark's name.
var processors = regexp.MustCompile(`-\d+$`)

// metric returns one that must be there.
func (b *bench) metric(of map[string]float64, name string) float64 {
	value, ok := of[name]
	if !ok {
		b.Fatalf("there is no %q among %v", name, of)
	}
	return value
}

// besideEngines measures what a provider adds to the engine that it has: both in one process, in one run.
func besideEngines(b *bench) {
	get := b.goBench("runtime", "^BenchmarkGet$", "200000x")
	added := b.metric(get, "Get/guest_in_C ns/op") - b.metric(get, "Get/bare_map ns/op")
	report(b, "kv get by a guest in C, over a look into the bare map", time.Duration(added), 1500*time.Nanosecond, "")

	put := b.goBench("capability/kv/replica", "^Benchmark(Put|BareApply)$", "3000x")
	ours, theirs := b.metric(put, "Put/callers=1 p50-µs"), b.metric(put, "BareApply/callers=1 p50-µs")
	report(b, "kv set of the backend raft: on 3 nodes, p50", time.Duration(ours*1000), 0, "")
	report(b, "the same, beside an apply of bare hashicorp/raft", ours/theirs, 1.5, "times")
	b.reportLeast("the same by 64 callers, a second", b.metric(put, "Put/callers=64 calls/s"), 5000)

	message := b.goBench("capability/messaging", "^BenchmarkAcrossNodes$", "20000x")
	ours, theirs = b.metric(message, "AcrossNodes/engine/16 p50-ns"), b.metric(message, "AcrossNodes/bare/16 p50-ns")
	report(b, "publish to receive on another node, p50", time.Duration(ours), 0, "")
	report(b, "the same, beside bare NATS", ours/theirs, 2, "times")

	request := b.goBench("capability/http", "^BenchmarkBesideNetHTTP$", "2000x")
	report(b, "HTTP request beside net/http, p50", b.metric(request, "BesideNetHTTP/get/100 times"), 1.15, "times")
	report(b, "the same with 1 MiB", b.metric(request, "BesideNetHTTP/get/1048576 times"), 1.15, "times")
}
