package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// figure is one group of measurements, taken on clusters of its own.
type figure struct {
	name    string
	measure func(*bench)
}

var figures = []figure{
	{"binary", binarySize},
	{"idle", idleNodes},
	{"start", startCached},
	{"journal", journalCost},
	{"slow-disk", slowJournal},
	{"count", countThousand},
	{"density", tenThousandIdle},
	{"failover", leaderKilled},
	{"loss", hostLost},
	{"loss-local", hostLostLocal},
	{"power", powerCycle},
	{"rebuild", rebuildFacts},
	{"agents", manyAgents},
	{"engines", besideEngines},
	{"capability", capabilityCalls},
	{"page", statusPage},
	{"metering", metering},
	{"spinners", spinningGuests},
}

func main() {
	only := flag.String("only", "", "comma-separated figures to measure; all by default: "+names())
	rounds := flag.Int("rounds", 20, "how often the leader, or a host, is killed")
	steady := flag.Duration("steady", 10*time.Minute, "how long a cluster that runs spinning guests is watched")
	disk := flag.String("serve-slow-disk", "", "be a slow disk, `MEMORY:MOUNTPOINT`; for this program's own use")
	flag.Parse()
	var err error
	if *disk != "" {
		err = serveSlowDisk(*disk, os.Stdin, os.Stdout)
	} else {
		err = run(*only, *rounds, *steady)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(only string, rounds int, steady time.Duration) error {
	root, err := rig.Root()
	if err != nil {
		return err
	}
	binary := filepath.Join(root, "bin", "wasmatrix")
	b := &bench{root: root, product: rig.Product{Node: binary, Client: binary}, rounds: rounds, steady: steady}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w: run `make build` first", err)
	}
	fmt.Println(machine())
	failed := 0
	for _, f := range figures {
		if only != "" && !strings.Contains(","+only+",", ","+f.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", f.name)
		if !b.take(f) {
			failed++
		}
	}
	b.print(os.Stdout)
	if failed > 0 {
		return fmt.Errorf("%d of the measurements broke off", failed)
	}
	return nil
}

func names() string {
	var all []string
	for _, f := range figures {
		all = append(all, f.name)
	}
	return strings.Join(all, ", ")
}
