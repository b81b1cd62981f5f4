package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

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
			"OpenTelemetry's OTEL_ variables have it export traces, and other commands too.\n\n" +
			"There is no authentication yet: whoever reaches its ports can run code.\n\n" +
			"    wasmatrix agent --bind 10.0.0.5\n" +
			"    wasmatrix agent --bind 10.0.0.6 --join 10.0.0.5 --label zone=north",
		Flags: agentFlags(),
		Action: func(c *cli.Context) error {
			if _, err := exactly(c); err != nil {
				return err
			}
			if c.Bool("check-config") {
				return checkConfig(c, build)
			}
			s, err := readSettings(c)
			if err != nil {
				return err
			}
			log, err := newLog(s)
			if err != nil {
				return s.wrong(err)
			}
			defer log.Level.Close()
			cfg, err := agentConfig(s, build)
			if err != nil {
				return s.wrong(err)
			}
			cfg.Log, cfg.Logging = log.Logger(), log
			systemd, err := newSupervisor(cfg)
			if err != nil {
				return err
			}
			cfg.Pulse = systemd.pulse()
			cfg.Ready = func(info node.Info) {
				systemd.ready(info)
				tellNext(cfg.Log.With("node", info.NodeName), cfg, info)
			}
			ctx, stop := untilSignal(c.Context, os.Exit)
			defer stop()
			reload := newReloader(c, build, s, cfg, log)
			cfg.Settings = reload.describe
			changes, stopReloading := reload.atHangup(ctx)
			defer stopReloading()
			cfg.Changes = changes
			if err = node.Run(ctx, cfg); err != nil {
				systemd.failed(err)
			}
			return err
		},
	}
}

// agentFlags returns the flags of a node. They are the one source of what can be set, whether on the command line, in the
// environment or in a file, and of what the documentation says of it.
func agentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "read what is not given on the command line or in the environment from this `FILE`, in YAML; SIGHUP reads it again", EnvVars: env("config")},
		&cli.BoolFlag{Name: "check-config", Usage: "only say what is wrong with the configuration, or what it comes to; nothing is started or made", EnvVars: env("check-config")},
		&cli.StringSliceFlag{Name: "join", Usage: "join through these gossip `ADDRESSES` of any members; repeatable, or with commas", EnvVars: env("join")},
		&cli.IntFlag{Name: "bootstrap-expect", Usage: "found no cluster alone: the first `N` that see each other do it together; the same on each of them", EnvVars: env("bootstrap-expect")},
		&cli.StringFlag{Name: "cluster-name", Value: "wasmatrix", Usage: "call the cluster this `NAME`, if this node founds it; nothing changes it later", EnvVars: env("cluster-name")},
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
		&cli.IntFlag{Name: "max-cpu", DefaultText: "1000 for each core", Usage: "refuse instances that are promised more than `N` thousandths of a core in all (run --cpu)", EnvVars: env("max-cpu")},
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
		&cli.StringSliceFlag{Name: "event-webhook", Usage: "while this node leads, post what happens as CloudEvents to this `URL`; repeatable, or with commas (one in an address is %2C); the same on each node", EnvVars: env("event-webhook")},
		&cli.StringFlag{Name: "event-webhook-secret-file", Usage: "sign what is posted with the key in this `FILE`", EnvVars: env("event-webhook-secret-file")},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "log from this `LEVEL` on: debug, info, warn or error", EnvVars: env("log-level")},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "log in this `FORMAT`: text or json", EnvVars: env("log-format")},
	}
}

// lossGrace is how long a lost node is waited for: a quick restart is cheaper than a move, unless speed is what was
// asked for.
func lossGrace(s *settings) time.Duration {
	switch {
	case s.given("node-loss-grace"):
		return s.Duration("node-loss-grace")
	case s.String("gossip-profile") == node.GossipLocal:
		return 250 * time.Millisecond
	}
	return 2 * time.Second
}

// agentConfig makes the settings what a node is told. The error has all that is wrong with them.
func agentConfig(s *settings, build Build) (node.Config, error) {
	cfg := node.Config{
		NodeName:         s.String("name"),
		DataDir:          s.String("data-dir"),
		Bind:             s.String("bind"),
		Advertise:        s.String("advertise"),
		GossipPort:       s.Int("gossip-port"),
		RPCPort:          s.Int("rpc-port"),
		HTTPPort:         s.Int("http-port"),
		NATSPort:         s.Int("nats-port"),
		NATSRoutePort:    s.Int("nats-route-port"),
		Join:             splitCommas(s.StringSlice("join")),
		BootstrapExpect:  s.Int("bootstrap-expect"),
		ClusterName:      s.String("cluster-name"),
		Voters:           s.Int("voters"),
		TimingMultiplier: s.Float64("timing-multiplier"),
		GossipProfile:    s.String("gossip-profile"),
		Version:          build.Version,
		Commit:           build.Commit,
	}
	cfg.MaxCPU = s.Int("max-cpu")
	cfg.MaxInstances, cfg.NodeLossGrace, cfg.DrainTimeout = s.Int("max-instances"), lossGrace(s), s.Duration("drain-timeout")
	cfg.RaiseProcessors = os.Getenv("GOMAXPROCS") == "" // else the operator has decided
	cfg.Etcd.Endpoints = splitCommas(s.StringSlice("etcd-endpoints"))
	cfg.Etcd.User, cfg.Etcd.PasswordFile = s.String("etcd-user"), s.String("etcd-password-file")
	cfg.Etcd.CAFile, cfg.Etcd.CertFile, cfg.Etcd.KeyFile = s.String("etcd-ca-file"), s.String("etcd-cert-file"), s.String("etcd-key-file")
	cfg.EventWebhooks.URLs, cfg.EventWebhooks.SecretFile = splitCommas(s.StringSlice("event-webhook")), s.String("event-webhook-secret-file")
	var errs []error
	var err error
	if cfg.Labels, err = parsePairs(splitCommas(s.StringSlice("label"))); err != nil {
		errs = append(errs, fmt.Errorf("--label: %w", err))
	}
	if cfg.NodeName == "" {
		if cfg.NodeName, err = os.Hostname(); err != nil {
			errs = append(errs, fmt.Errorf("the host has no name (%w): give --name", err))
		}
	}
	if cfg.DataDir == "" {
		if cfg.DataDir, err = dataDir(); err != nil {
			errs = append(errs, fmt.Errorf("no place for the node's data (%w): give --data-dir", err))
		}
	}
	if s.given("max-cpu") && cfg.MaxCPU == 0 { // to the node it would be the default
		errs = append(errs, errors.New("--max-cpu 0: want at least 1 millicore"))
	}
	if cfg.MaxMemory, err = maxMemory(s); err != nil {
		errs = append(errs, err)
		cfg.MaxMemory = 1 << 30 // said once
	}
	return cfg, errors.Join(append(errs, cfg.Validate())...)
}

func maxMemory(s *settings) (uint64, error) {
	if asked := s.String("max-memory"); asked != "" {
		n, err := parseSize(asked)
		if err != nil {
			return 0, fmt.Errorf("--max-memory: %w", err)
		}
		return n, nil
	}
	total, err := hostMemory()
	if err != nil {
		return 0, fmt.Errorf("the host does not tell its memory (%w): give --max-memory", err)
	}
	return uint64(float64(total) * memoryShare), nil
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
	log.Info("ready", "node_id", info.NodeID, "cluster_id", info.ClusterID, "rpc_addr", info.RPCAddr)
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
