package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/wasmatrix/wasmatrix/node"
)

const (
	// maxDevNodes is more than anybody wants on one machine, and fewer than hurt.
	maxDevNodes = 9
	// devReady is how long a node may take to be in. It takes a second, unless the machine is starved.
	devReady = time.Minute
	// devLeave is how long the nodes may take to end. Nothing of them is needed any more.
	devLeave = time.Second
)

func devCommand(build Build) *cli.Command {
	return &cli.Command{
		Name:      "dev",
		Usage:     "run a throw-away cluster, and a module that is watched",
		ArgsUsage: "[MODULE] [-- ARG...]",
		Description: "All nodes are in this process, on 127.0.0.1, and keep their data in a temporary directory. The first has the usual ports,\n" +
			"if they are free, so that other commands find it. MODULE, a .wasm file, is run as `wasmatrix run` would, and its output\n" +
			"shown. When the file changes, the new module takes over; if that does not run, the one before goes on. Ctrl-C ends it\n" +
			"all and leaves nothing behind.",
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "nodes", Value: 1, Usage: "start `N` nodes", EnvVars: env("nodes")},
			&cli.BoolFlag{Name: "no-open", Usage: "don't open the status page in a browser", DisableDefaultText: true, EnvVars: env("no-open")},
			&cli.BoolFlag{Name: "watch", Value: true, Usage: "start the module anew when its file changes", EnvVars: env("watch")},
			&cli.StringFlag{Name: "log-level", Value: "error", Usage: "show what the nodes log from this `LEVEL` on: debug, info, warn or error", EnvVars: env("log-level")},
		}, specFlags()...),
		Action: func(c *cli.Context) error { return runDev(c, build) },
	}
}

func runDev(c *cli.Context, build Build) (err error) {
	nodes := c.Int("nodes")
	if nodes < 1 || nodes > maxDevNodes {
		return usagef(c, "--nodes %d: want from 1 to %d", nodes, maxDevNodes)
	}
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return usagef(c, "--log-level %q: want debug, info, warn or error", c.String("log-level"))
	}
	// Several guests and nodes write at once.
	c.App.Writer, c.App.ErrWriter = &lockedWriter{w: c.App.Writer}, &lockedWriter{w: c.App.ErrWriter}
	client := &client{Context: c, timeout: defaultTimeout}
	var module *devModule
	if c.Args().Present() {
		if module, err = newDevModule(client); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "wasmatrix-dev-")
	if err != nil {
		return fmt.Errorf("a place for the nodes' data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, stop := untilSignal(c.Context, func(code int) {
		_ = os.RemoveAll(dir) // in a hurry
		os.Exit(code)
	})
	defer stop()
	ctx, hungUp := signal.NotifyContext(ctx, syscall.SIGHUP) // the terminal was closed
	defer hungUp()

	cluster := &devCluster{dir: dir, build: build, log: slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level}))}
	defer func() {
		level.Set(slog.LevelError + 1) // nodes that leave all at once complain of each other
		cluster.stop()
	}()
	for range nodes {
		if err := cluster.add(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	first := cluster.nodes[0].info
	if err := client.dial(first.RPCAddr); err != nil {
		return err
	}
	defer client.conn.Close()
	cluster.tell(c.App.Writer)
	if page := "http://" + first.HTTPAddr; !c.Bool("no-open") && hasDisplay() {
		if err := openBrowser(page); err != nil {
			client.note("could not open %s: %s", page, err)
		}
	}
	if module == nil {
		return cluster.wait(ctx)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cluster.wait(ctx) })
	g.Go(func() error { return module.run(ctx) })
	return g.Wait()
}

// devCluster is nodes in this process.
type devCluster struct {
	dir   string
	build Build
	log   *slog.Logger
	nodes []*devNode
}

type devNode struct {
	info   node.Info
	cancel context.CancelFunc
	ended  chan struct{} // closed when it has, with err
	err    error
}

// add starts one more node, and returns when it is a member.
func (d *devCluster) add(ctx context.Context) error {
	number := len(d.nodes) + 1
	ports, err := devPorts(number == 1)
	if err != nil {
		return err
	}
	total, err := hostMemory()
	if err != nil {
		return fmt.Errorf("the host does not tell its memory: %w", err)
	}
	ready := make(chan node.Info, 1)
	name := "dev" + strconv.Itoa(number)
	cfg := node.Config{
		NodeName: name, DataDir: filepath.Join(d.dir, name), Bind: "127.0.0.1",
		GossipPort: ports[0], RPCPort: ports[1], HTTPPort: ports[2], NATSPort: ports[3], NATSRoutePort: ports[4],
		Voters: 3, GossipProfile: node.GossipLocal, TimingMultiplier: 1,
		Version: d.build.Version, Commit: d.build.Commit, Log: d.log, Ready: func(info node.Info) { ready <- info },
	}
	cfg.MaxInstances, cfg.MaxMemory = 10_000, uint64(float64(total)*memoryShare)
	cfg.NodeLossGrace, cfg.DrainTimeout = 2*time.Second, devLeave
	if number > 1 {
		cfg.Join = []string{d.nodes[0].info.Gossip}
	} else if os.Getenv("GOMAXPROCS") == "" { // they are the process's, and so one node asks for them
		cfg.RaiseProcessors = true
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n := &devNode{cancel: cancel, ended: make(chan struct{})}
	d.nodes = append(d.nodes, n)
	go func() {
		defer close(n.ended)
		n.err = node.Run(running, cfg)
	}()
	select {
	case n.info = <-ready:
		return nil
	case <-n.ended:
		return fmt.Errorf("node %s: %w", name, n.err)
	case <-time.After(devReady):
		return fmt.Errorf("node %s is not in the cluster after %s; --log-level info says more", name, devReady)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends all nodes at once, and returns when nothing of them runs any more.
func (d *devCluster) stop() {
	for _, n := range d.nodes {
		n.cancel()
	}
	for _, n := range d.nodes {
		<-n.ended
	}
}

// wait returns when ctx ends, or with the error of a node that ends by itself.
func (d *devCluster) wait(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range d.nodes {
		g.Go(func() error {
			select {
			case <-n.ended:
				return fmt.Errorf("node %s: %w", n.info.NodeName, n.err)
			case <-ctx.Done():
				return nil
			}
		})
	}
	return g.Wait()
}

// tell says where the cluster is, and what to type.
func (d *devCluster) tell(w io.Writer) {
	for _, n := range d.nodes {
		fmt.Fprintf(w, "%s  rpc %s  page http://%s\n", n.info.NodeName, n.info.RPCAddr, n.info.HTTPAddr)
	}
	if addr := d.nodes[0].info.RPCAddr; addr != defaultAddr {
		fmt.Fprintf(w, "For other commands: export WASMATRIX_ADDR=%s\n", addr)
	}
	fmt.Fprintln(w, "Ctrl-C ends it all and leaves nothing behind.")
}

// devPorts returns five free ports: the usual ones where that is wanted and possible.
func devPorts(usual bool) (ports [5]int, err error) {
	if usual {
		for n := range ports {
			ports[n] = 7400 + n
		}
		if allFree(ports) == nil {
			return ports, nil
		}
	}
	const tries = 10 // between two looks somebody else may take one
	for range tries {
		var held []net.Listener
		for n := range ports {
			l, listenErr := net.Listen("tcp", "127.0.0.1:0")
			if listenErr != nil {
				err = listenErr
				break
			}
			held = append(held, l)
			ports[n] = l.Addr().(*net.TCPAddr).Port
		}
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
		if err == nil {
			err = allFree(ports)
		}
		if err == nil {
			return ports, nil
		}
	}
	return ports, fmt.Errorf("no free ports on 127.0.0.1: %w", err)
}

// allFree returns an error if one of the ports can't be listened on. The first is of gossip, which has UDP too.
func allFree(ports [5]int) error {
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ports[0]})
	if err != nil {
		return err
	}
	return u.Close()
}

// lockedWriter has whole lines of several writers stay whole.
type lockedWriter struct {
	mu sync.Mutex // held while something is written

	w io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
