package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/logging"
	"github.com/wasmatrix/wasmatrix/node"
)

// memoryShare is the part of the host's memory that instances may have: the rest is for the node and
// its host.
const memoryShare = 0.8

func agentCommand(build Build) *cli.Command {
	return &cli.Command{
		Name:      "agent",
		Usage:     "run a node",
		ArgsUsage: " ",
		Description: "Without --join, and with an empty data dir, the node founds a new cluster; with it, it goes on trying\n" +
			"until it is in. SIGTERM and SIGINT make it leave in order; a second one ends it at once.\n\n" +
			"There is no authentication yet: whoever reaches its ports can run code.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "join", Usage: "join through these gossip `ADDRESSES` of any members; repeatable, or with commas", EnvVars: env("join")},
			&cli.IntFlag{Name: "bootstrap-expect", Usage: "found no cluster alone: the first `N` that see each other do it together; the same on each of them", EnvVars: env("bootstrap-expect")},
			&cli.StringFlag{Name: "name", Usage: "give the node this `NAME`, unique in the cluster", DefaultText: "the host's name", EnvVars: env("name")},
			&cli.StringFlag{Name: "data-dir", Usage: "keep everything in this `DIR`", DefaultText: "/var/lib/wasmatrix as root, else $XDG_DATA_HOME/wasmatrix", EnvVars: env("data-dir")},
			&cli.StringFlag{Name: "bind", Value: "127.0.0.1", Usage: "listen on this `IP` with all ports", EnvVars: env("bind")},
			&cli.StringFlag{Name: "advertise", Usage: "have others dial this `IP`", DefaultText: "from --bind, else the first private address", EnvVars: env("advertise")},
			&cli.IntFlag{Name: "gossip-port", Value: 7400, Usage: "TCP and UDP `PORT` of gossip", EnvVars: env("gossip-port")},
			&cli.IntFlag{Name: "rpc-port", Value: 7401, Usage: "TCP `PORT` of gRPC and Raft", EnvVars: env("rpc-port")},
			&cli.IntFlag{Name: "http-port", Value: 7402, Usage: "TCP `PORT` of status page, JSON and metrics", EnvVars: env("http-port")},
			&cli.IntFlag{Name: "nats-port", Value: 7403, Usage: "TCP `PORT` on which NATS clients can talk to guests", EnvVars: env("nats-port")},
			&cli.IntFlag{Name: "nats-route-port", Value: 7404, Usage: "TCP `PORT` of messages between nodes", EnvVars: env("nats-route-port")},
			&cli.IntFlag{Name: "voters", Value: 3, Usage: "keep `N` Raft voters in the cluster, an odd number; other nodes are agents only", EnvVars: env("voters")},
			&cli.StringSliceFlag{Name: "label", Usage: "give the node a `K=V` for constraints; repeatable, or with commas", EnvVars: env("label")},
			&cli.IntFlag{Name: "max-instances", Value: 10_000, Usage: "refuse more than `N` instances", EnvVars: env("max-instances")},
			&cli.StringFlag{Name: "max-memory", Usage: "refuse instances whose memory limits add up to more than this `SIZE`", DefaultText: "80% of RAM", EnvVars: env("max-memory")},
			&cli.StringFlag{Name: "gossip-profile", Value: node.GossipLAN, Usage: "notice a dead node in three seconds (lan), or in one (local): `PROFILE` for hosts side by side with time to spare", EnvVars: env("gossip-profile")},
			&cli.Float64Flag{Name: "timing-multiplier", Value: 1, Usage: "stretch the timeouts of gossip and Raft by this `FACTOR`, for slow networks and hosts", EnvVars: env("timing-multiplier")},
			&cli.DurationFlag{Name: "node-loss-grace", DefaultText: "2s; 250ms with --gossip-profile local", Usage: "start what ran on a lost node elsewhere after this `TIME`; a quick restart is cheaper", EnvVars: env("node-loss-grace")},
			&cli.DurationFlag{Name: "drain-timeout", Value: 30 * time.Second, Usage: "leave within this `TIME`", EnvVars: env("drain-timeout")},
			&cli.StringSliceFlag{Name: "etcd-endpoints", Usage: "while this node leads, copy who is here and which providers there are to the etcd at these `ADDRESSES`, each HOST:PORT; repeatable, or with commas; the same on each node", EnvVars: env("etcd-endpoints")},
			&cli.StringFlag{Name: "etcd-user", Usage: "be this `USER` to etcd", EnvVars: env("etcd-user")},
			&cli.StringFlag{Name: "etcd-password-file", Usage: "the user's password is in this `FILE`", EnvVars: env("etcd-password-file")},
			&cli.StringFlag{Name: "etcd-ca-file", Usage: "use TLS with etcd, and trust who is certified by those in this `FILE`", EnvVars: env("etcd-ca-file")},
			&cli.StringFlag{Name: "etcd-cert-file", Usage: "show etcd the certificate in this `FILE`", EnvVars: env("etcd-cert-file")},
			&cli.StringFlag{Name: "etcd-key-file", Usage: "the certificate's key is in this `FILE`", EnvVars: env("etcd-key-file")},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "log from this `LEVEL` on: debug, info, warn or error", EnvVars: env("log-level")},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "log in this `FORMAT`: text or json", EnvVars: env("log-format")},
		},
		Action: func(c *cli.Context) error {
			if _, err := exactly(c); err != nil {
				return err
			}
			log, err := newLog(c)
			if err != nil {
				return err
			}
			defer log.Level.Close()
			cfg, err := agentConfig(c, build, log)
			if err != nil {
				return err
			}
			systemd, err := newSupervisor(cfg)
			if err != nil {
				return err
			}
			cfg.Pulse = systemd.pulse()
			cfg.Ready = func(info node.Info) {
				systemd.ready(info)
				tellNext(cfg.Log, cfg, info)
			}
			ctx, stop := untilSignal(c.Context, os.Exit)
			defer stop()
			if err = node.Run(ctx, cfg); err != nil {
				systemd.failed(err)
			}
			return err
		},
	}
}

// spareProcessors is how many guests may run without end before they queue with the control plane for
// Go's processors (docs/decisions/005-spare-processors.md).
const spareProcessors = 16

// lossGrace is how long a lost node is waited for: a quick restart is cheaper than a move, unless speed is what was
// asked for.
func lossGrace(c *cli.Context) time.Duration {
	switch {
	case c.IsSet("node-loss-grace"):
		return c.Duration("node-loss-grace")
	case c.String("gossip-profile") == node.GossipLocal:
		return 250 * time.Millisecond
	}
	return 2 * time.Second
}

// agentConfig reads the flags of a node.
func agentConfig(c *cli.Context, build Build, log *logging.Log) (node.Config, error) {
	cfg := node.Config{
		NodeName:         c.String("name"),
		DataDir:          c.String("data-dir"),
		Bind:             c.String("bind"),
		Advertise:        c.String("advertise"),
		GossipPort:       c.Int("gossip-port"),
		RPCPort:          c.Int("rpc-port"),
		HTTPPort:         c.Int("http-port"),
		NATSPort:         c.Int("nats-port"),
		NATSRoutePort:    c.Int("nats-route-port"),
		Join:             splitCommas(c.StringSlice("join")),
		BootstrapExpect:  c.Int("bootstrap-expect"),
		Voters:           c.Int("voters"),
		TimingMultiplier: c.Float64("timing-multiplier"),
		MaxInstances:     c.Int("max-instances"),
		GossipProfile:    c.String("gossip-profile"),
		NodeLossGrace:    lossGrace(c),
		DrainTimeout:     c.Duration("drain-timeout"),
		Version:          build.Version,
		Commit:           build.Commit,
		Log:              log.Logger(),
	}
	if os.Getenv("GOMAXPROCS") == "" { // else the operator has decided
		cfg.SpareProcessors = spareProcessors
	}
	cfg.Etcd.Endpoints = splitCommas(c.StringSlice("etcd-endpoints"))
	cfg.Etcd.User, cfg.Etcd.PasswordFile = c.String("etcd-user"), c.String("etcd-password-file")
	cfg.Etcd.CAFile, cfg.Etcd.CertFile, cfg.Etcd.KeyFile = c.String("etcd-ca-file"), c.String("etcd-cert-file"), c.String("etcd-key-file")
	var err error
	if cfg.Labels, err = pairsOf(c, "label", splitCommas(c.StringSlice("label"))); err != nil {
		return cfg, err
	}
	if cfg.NodeName == "" {
		if cfg.NodeName, err = os.Hostname(); err != nil {
			return cfg, usagef(c, "the host has no name (%s): give --name", err)
		}
	}
	if cfg.DataDir == "" {
		if cfg.DataDir, err = dataDir(); err != nil {
			return cfg, usagef(c, "no place for the node's data (%s): give --data-dir", err)
		}
	}
	if c.String("max-memory") != "" {
		if cfg.MaxMemory, err = sizeOf(c, "max-memory"); err != nil {
			return cfg, err
		}
	} else {
		total, err := hostMemory()
		if err != nil {
			return cfg, usagef(c, "the host does not tell its memory (%s): give --max-memory", err)
		}
		cfg.MaxMemory = uint64(float64(total) * memoryShare)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, usagef(c, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return cfg, nil
}

// dataDir returns where a node keeps its data if nobody says otherwise.
func dataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/wasmatrix", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) { // the specification has relative ones ignored
		return filepath.Join(dir, "wasmatrix"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "share", "wasmatrix"), nil
}

// tellNext says where the node is, and what to type next.
func tellNext(log *slog.Logger, cfg node.Config, info node.Info) {
	log.Info("ready", "node", info.NodeName, "node_id", info.NodeID, "cluster_id", info.ClusterID, "rpc_addr", info.RPCAddr)
	log.Info("next: look at the cluster", "command", "wasmatrix members --addr "+info.RPCAddr, "page", "http://"+info.HTTPAddr)
	if cfg.Bind == "127.0.0.1" {
		log.Info("this node listens on loopback only; for a cluster of several hosts give --bind an address that they reach")
		return
	}
	log.Info("next: let another host join", "command", "wasmatrix agent --bind ITS-IP --join "+info.Gossip)
}

// errSignal is the cause of an orderly exit.
var errSignal = errors.New("told to leave by a signal")

// untilSignal returns a context that ends with the first SIGTERM or SIGINT. The second one calls exit.
func untilSignal(ctx context.Context, exit func(code int)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					exit(exitFailed)
				}
				cancel(fmt.Errorf("%w: %s", errSignal, s))
			case <-ended:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel(nil)
	}
}
