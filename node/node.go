package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/agent"
	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/replica"
	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/controlplane"
	"github.com/wasmatrix/wasmatrix/logging"
	"github.com/wasmatrix/wasmatrix/mirror"
	"github.com/wasmatrix/wasmatrix/modulestore"
	"github.com/wasmatrix/wasmatrix/notify"
	"github.com/wasmatrix/wasmatrix/operator"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/provider"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/runtime"
	"github.com/wasmatrix/wasmatrix/tracing/otlp"
	"github.com/wasmatrix/wasmatrix/web"
)

// protocol is the version of what nodes say to each other. Nodes of another one are refused.
const protocol = 1

// compiledDir is where compiled code is kept, in the data directory.
const compiledDir = "compiled"

// node is one running node: its parts, wired.
type node struct {
	cfg          Config
	cores        int                     // before any are added for the sake of guests
	ip           string                  // that others dial
	registration *pb.Node                // save for what is tuned
	tuned        atomic.Pointer[Tunable] // what holds now of what can change
	retuned      chan struct{}           // has one when the leader is to be told of it

	metrics *prometheus.Registry
	port    *rpc.Port
	peers   *rpc.Peers
	self    pb.ControlPlaneServiceClient // this node's own server, which forwards to the leader
	store   *modulestore.Store
	engine  *runtime.Engine
	agent   *agent.Agent
	cluster *cluster.Cluster
	control *controlplane.Server
	server  *grpc.Server
	web     *web.Server

	messages  *messages
	replicas  *replica.Group
	providers *provider.Host
	mirror    *mirror.Mirror // nil where no etcd is given
	traces    *otlp.Provider // nil where nobody traces
	notifier  *notify.Notifier
}

// Run runs a node until ctx ends, and then leaves in order: instances are started elsewhere and
// stopped here, leadership and vote are handed over, and gossip hears that the node left. It
// returns early with the error of a part that can't go on.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Logging == nil {
		cfg.Logging = logging.Discard()
	}
	if cfg.Log == nil {
		cfg.Log = cfg.Logging.Logger()
	}
	n, err := build(ctx, cfg)
	if err != nil {
		return advised(err)
	}
	return advised(errors.Join(n.run(ctx), n.close()))
}

// build opens what is on disk and on the network, and makes the parts. Nothing runs yet.
func build(ctx context.Context, cfg Config) (n *node, err error) {
	cfg.Log = cfg.Log.With("node", cfg.NodeName)
	n = &node{cfg: cfg, metrics: prometheus.NewRegistry(), peers: rpc.NewPeers(), messages: &messages{up: make(chan struct{})}, retuned: make(chan struct{}, 1)}
	n.cores = goruntime.GOMAXPROCS(0) // now: guests will have some added
	n.tuned.Store(&cfg.Tunable)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return n, fmt.Errorf("make --data-dir: %w", err)
	}
	id, err := identity(cfg.DataDir)
	if err != nil {
		return n, err
	}
	n.traces = openTraces(ctx, cfg, id)
	ip, err := cfg.advertised()
	if err != nil {
		return n, err
	}
	n.ip = ip
	n.registerMetrics(id)
	addr := func(port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }
	n.registration = &pb.Node{
		NodeId: id, Name: cfg.NodeName, Version: cfg.Version, Protocol: protocol,
		GossipAddr: addr(cfg.GossipPort), RpcAddr: addr(cfg.RPCPort), HttpAddr: addr(cfg.HTTPPort),
		State: pb.NodeState_NODE_STATE_ACTIVE, Capabilities: capability.Types(),
	}
	log := n.cfg.Log

	if n.port, err = rpc.Listen(net.JoinHostPort(cfg.Bind, strconv.Itoa(cfg.RPCPort)), log); err != nil {
		return n, err
	}
	if n.store, err = modulestore.Open(filepath.Join(cfg.DataDir, "modules")); err != nil {
		return n, err
	}
	n.engine, err = runtime.New(ctx, runtime.Config{
		CacheDir: filepath.Join(cfg.DataDir, compiledDir), RaiseProcessors: cfg.RaiseProcessors, Log: log, Registerer: n.metrics,
	})
	if err != nil {
		return n, err
	}
	fsm := raftfsm.New()
	n.cluster, err = cluster.New(cluster.Config{
		NodeID: id, NodeName: cfg.NodeName, Version: cfg.Version, DataDir: cfg.DataDir,
		Bind: cfg.Bind, Advertise: ip, GossipPort: cfg.GossipPort, RPCPort: cfg.RPCPort, HTTPPort: cfg.HTTPPort,
		NATSPort: cfg.NATSPort, NATSRoutePort: cfg.NATSRoutePort,
		Join: cfg.Join, BootstrapExpect: cfg.BootstrapExpect, ClusterName: cfg.ClusterName, Voters: cfg.Voters,
		GossipProfile: cfg.GossipProfile, TimingMultiplier: cfg.TimingMultiplier, Log: log, Registerer: n.metrics,
	}, fsm, func() cluster.StreamLayer { return n.port.RaftStream(addr(cfg.RPCPort)) })
	if err != nil {
		return n, err
	}
	n.replicas, err = replica.New(replica.Config{
		NodeID: id, Dir: filepath.Join(cfg.DataDir, "keys"), TimingMultiplier: cfg.TimingMultiplier, Log: log, Registerer: n.metrics,
		OpenStream: func() replica.StreamLayer { return n.port.ReplicaStream(addr(cfg.RPCPort)) }, Addr: n.rpcAddr,
	})
	if err != nil {
		return n, err
	}
	n.providers = provider.New(provider.Config{
		Keys: keys{n.replicas}, Registerer: n.metrics,
		NodeID: id, NodeName: cfg.NodeName, Path: filepath.Join(cfg.DataDir, "providers"), Log: log,
		Open: provider.Engines{NodeName: cfg.NodeName, Messages: n.messages.wait, Log: log}.Open,
	}, n.peers)
	limits := n.limits(&cfg.Tunable)
	n.agent, err = agent.New(agent.Config{
		Providers: n.providers,
		NodeID:    id, NodeName: cfg.NodeName, JournalDir: filepath.Join(cfg.DataDir, "journal"), MaxInstances: limits.Instances, MaxMemory: limits.Memory, MaxCPU: limits.CPU,
		Process: process, OnLeader: n.cluster.SetLeaderHint, Log: log, Registerer: n.metrics, Tracer: n.traces.Tracer(),
	}, n.engine, n.store, n.peers, voters{n.cluster})
	if err != nil {
		return n, err
	}
	n.control = controlplane.New(controlplane.Config{
		NodeID: id, NodeName: cfg.NodeName, RPCAddr: addr(cfg.RPCPort), Version: cfg.Version,
		NodeLossGrace: cfg.NodeLossGrace, Log: log, Registerer: n.metrics, Tracer: n.traces.Tracer(),
	}, n.cluster, fsm, n.peers, n.agent)
	if len(cfg.Etcd.Endpoints) > 0 {
		if n.mirror, err = mirror.New(mirror.Config{Etcd: cfg.Etcd, Log: log, Registerer: n.metrics}, n.cluster, fsm); err != nil {
			return n, err
		}
	}
	n.notifier, err = notify.New(notify.Config{
		Webhooks: cfg.EventWebhooks, Messages: n.nodesMessages, Version: cfg.Version, Log: log, Registerer: n.metrics,
	}, n.cluster, n.control.Events())
	if err != nil {
		return n, err
	}
	n.server = rpc.NewServer(rpc.ServerConfig{Log: log, Leader: leader{n.cluster}, Peers: n.peers, Ready: n.servesControlPlane, Registerer: n.metrics, Tracer: n.traces.Tracer()})
	n.agent.Register(n.server)
	n.control.Register(n.server)
	operator.New(operator.Config{
		NodeID: id, NodeName: cfg.NodeName, Version: cfg.Version, DataDir: cfg.DataDir, Log: log, Logging: cfg.Logging, Sources: n.debugSources(),
	}, n.cluster, fsm, n.peers).Register(n.server)

	self, err := n.peers.Conn(addr(cfg.RPCPort))
	if err != nil {
		return n, err
	}
	n.self = pb.NewControlPlaneServiceClient(self)
	n.web = web.New(web.Config{
		Addr:         net.JoinHostPort(cfg.Bind, strconv.Itoa(cfg.HTTPPort)),
		ControlPlane: n.self, Providers: pb.NewProviderServiceClient(self), Gatherer: n.metrics, Registerer: n.metrics, Tracer: n.traces.Tracer(),
		NodeName: cfg.NodeName, Version: cfg.Version, Log: log,
	})
	return n, n.web.Listen()
}

// run starts the parts, waits for the end, and takes them down.
func (n *node) run(ctx context.Context) error {
	parts := newParts(ctx, n.cfg.Log)
	defer parts.stopAll()
	if err := n.cluster.Start(ctx); err != nil { // all others ask it who leads
		return err
	}
	parts.start("http", n.web.Run)
	parts.start("rpc port", n.port.Run)
	parts.start("grpc", n.serveGRPC)
	parts.start("cluster", n.runCluster)
	parts.start("messages", n.serveMessages)
	parts.start("replicas", n.runReplicas)
	parts.start("providers", n.runProviders)
	parts.start("agent", n.agent.Run)
	parts.start("control plane", n.control.Run)
	if n.mirror != nil {
		parts.start("mirror", n.mirror.Run)
	}
	parts.start("notifier", n.notifier.Run)
	parts.start("contact", n.keepContact)
	parts.start("tidying", n.tidy)
	if n.cfg.Pulse.Every > 0 {
		parts.start("pulse", n.keepPulse)
	}
	parts.start("registration", n.register)
	parts.start("changes", n.followChanges)
	select {
	case err := <-parts.failed:
		return err
	case <-ctx.Done():
	}
	if n.cfg.Pulse.Every > 0 {
		n.cfg.Pulse.Leaving(n.tuned.Load().DrainTimeout)
	}
	parts.stop("registration") // or it would undo the leaving
	n.leave(context.WithoutCancel(ctx))
	return nil
}

// runCluster closes the cluster part with its end, while the port that Raft uses is still open.
func (n *node) runCluster(ctx context.Context) error {
	return errors.Join(n.cluster.Run(ctx), n.cluster.Close())
}

// runReplicas takes part in the group that replicates keys and values, and hands its lead over in the end, while the port that
// it uses is still open.
func (n *node) runReplicas(ctx context.Context) error {
	return errors.Join(n.replicas.Run(ctx), n.replicas.Close())
}

// rpcAddr returns where a node serves, as gossip has it; empty where that does not know.
func (n *node) rpcAddr(nodeID string) string {
	for _, m := range n.cluster.Members() {
		if m.NodeID == nodeID {
			return m.RPCAddr
		}
	}
	return ""
}

// runProviders has the providers go on as they were before a restart, until ctx ends.
func (n *node) runProviders(ctx context.Context) error {
	defer n.providers.Close()
	if err := n.providers.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (n *node) serveGRPC(ctx context.Context) error {
	stop := context.AfterFunc(ctx, n.server.Stop)
	defer stop()
	return n.server.Serve(n.port.GRPC())
}

// close gives back what build opened.
func (n *node) close() error {
	var errs []error
	if n.cluster != nil {
		errs = append(errs, n.cluster.Close())
	}
	if n.engine != nil {
		errs = append(errs, n.engine.Close(context.Background()))
	}
	if n.port != nil {
		errs = append(errs, n.port.Close())
	}
	if n.web != nil {
		errs = append(errs, n.web.Close())
	}
	errs = append(errs, n.peers.Close())
	closeTraces(n.cfg.Log, n.traces)
	return errors.Join(errs...)
}
