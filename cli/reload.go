package cli

import (
	"cmp"
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/logging"
	"github.com/wasmatrix/wasmatrix/node"
)

// changeable is a flag that takes effect while a node runs.
type changeable struct {
	flag  string
	apply func(to *node.Tunable, from *node.Config)
}

// whileRunning returns the flags that take effect while a node runs. The others do with its next start.
func whileRunning() []changeable {
	return []changeable{
		{"label", func(to *node.Tunable, from *node.Config) { to.Labels = from.Labels }},
		{"max-instances", func(to *node.Tunable, from *node.Config) { to.MaxInstances = from.MaxInstances }},
		{"max-memory", func(to *node.Tunable, from *node.Config) { to.MaxMemory = from.MaxMemory }},
		{"max-cpu", func(to *node.Tunable, from *node.Config) { to.MaxCPU = from.MaxCPU }},
		{"node-loss-grace", func(to *node.Tunable, from *node.Config) { to.NodeLossGrace = from.NodeLossGrace }},
		{"drain-timeout", func(to *node.Tunable, from *node.Config) { to.DrainTimeout = from.DrainTimeout }},
		{"log-level", func(*node.Tunable, *node.Config) {}}, // no business of the node's
	}
}

// reloader reads the configuration of a running node again.
type reloader struct {
	command *cli.Context
	build   Build
	log     *logging.Log
	node    string
	start   *settings    // of the node's start
	tuned   node.Tunable // what the node was told last

	mu    sync.Mutex       // guards what follows
	since map[string]value // of the flags that take effect at once, those that have changed since the start
}

func newReloader(c *cli.Context, build Build, start *settings, cfg node.Config, log *logging.Log) *reloader {
	return &reloader{command: c, build: build, log: log, node: cfg.NodeName, start: start, tuned: cfg.Tunable, since: map[string]value{}}
}

// atHangup reads the configuration again at each SIGHUP, until ctx ends or stop is called. What changes comes through the
// channel.
func (r *reloader) atHangup(ctx context.Context) (_ <-chan node.Tunable, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	hangups, changes, ended := make(chan os.Signal, 1), make(chan node.Tunable), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer close(ended)
		for {
			select {
			case <-hangups:
			case <-ctx.Done():
				return
			}
			if !r.reload() {
				continue
			}
			select {
			case changes <- r.tuned:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changes, func() {
		cancel()
		<-ended
		signal.Stop(hangups)
	}
}

// reload reads the configuration again and says whether the node is to be told. A wrong one changes nothing.
func (r *reloader) reload() bool {
	log := r.log.Logger().With("node", r.node)
	if r.start.String("config") == "" {
		log.Info("told to read the configuration again, and there is no --config: nothing changes")
		return false
	}
	next, err := readSettings(r.command)
	if err == nil {
		err = checkSettings(next, r.build)
	}
	var cfg node.Config
	if err == nil {
		cfg, err = agentConfig(next, r.build)
	}
	level := r.log.Level.Level()
	if err == nil {
		level, err = logging.ParseLevel(next.String("log-level"))
	}
	if err != nil {
		log.Error("the configuration was read again, and is wrong: nothing changes", "err", err)
		return false
	}
	r.log.Level.Set(level) // also where it was changed by hand
	changed := 0
	for _, f := range next.Command.Flags {
		name := f.Names()[0]
		before, after := r.now(f), next.value(f)
		if before.text == after.text {
			continue
		}
		table := whileRunning()
		i := slices.IndexFunc(table, func(c changeable) bool { return c.flag == name })
		if i < 0 {
			log.Warn("a setting changes with the next start only", "setting", name, "value", after.shown, "was", before.shown)
			continue
		}
		changed++
		table[i].apply(&r.tuned, &cfg)
		r.mu.Lock()
		r.since[name] = after
		r.mu.Unlock()
		log.Info("a setting has changed", "setting", name, "value", after.shown, "was", before.shown)
	}
	log.Info("the configuration was read again", "path", next.String("config"), "settings", changed)
	return changed > 0
}

// now returns what a flag is set to in the node that runs.
func (r *reloader) now(f cli.Flag) value {
	r.mu.Lock()
	defer r.mu.Unlock()
	if changed, ok := r.since[f.Names()[0]]; ok {
		return changed
	}
	return r.start.value(f)
}

// describe writes all settings that hold now, without what may be secret in them.
func (r *reloader) describe(w io.Writer) error {
	var rows [][]string
	for _, f := range r.start.Command.Flags {
		if name := f.Names()[0]; !slices.Contains(notInFile, name) || r.start.given(name) {
			v := r.now(f)
			rows = append(rows, []string{name, v.shown, cmp.Or(v.from, "default")})
		}
	}
	return table(w, []column{{heading: "SETTING"}, {heading: "VALUE"}, {heading: "FROM"}}, rows)
}
