package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// Config is what a control plane is told about its node.
type Config struct {
	NodeID   string
	NodeName string
	// Where this node serves gRPC, as others dial it.
	RPCAddr string
	Version string
	// How long a new leader waits for agents that do not answer. Default 2 s (DESIGN section 4).
	RecoveryWindow time.Duration
	// How long a node must stay away, after most voters have noticed, before what ran there is started
	// elsewhere. Default 2 s: a quick restart is cheaper than a move.
	NodeLossGrace time.Duration
	// How often the leader looks after the modules. Default 10 s: how long a voter may lack a copy that
	// it has lost, and often enough for agents to hear it without a gap (agent/keeper.go).
	ModuleRound time.Duration
	Log         *slog.Logger
	// Registerer takes the metrics; nil for nobody.
	Registerer prometheus.Registerer
	// Tracer begins a trace with what the leader does of itself for an instance; nil for nobody.
	Tracer trace.Tracer
}

func (c Config) withDefaults() Config {
	if c.RecoveryWindow == 0 {
		c.RecoveryWindow = 2 * time.Second
	}
	if c.NodeLossGrace == 0 {
		c.NodeLossGrace = 2 * time.Second
	}
	if c.ModuleRound == 0 {
		c.ModuleRound = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Cluster is what the control plane needs of the cluster: who is there, who leads, and the log.
type Cluster interface {
	Leadership() cluster.Leadership
	Members() []cluster.Member
	Voters() []string
	ClusterID() string
	// Changed is closed when any of the above may have changed.
	Changed() <-chan struct{}
	Apply(ctx context.Context, cmd *pb.Command) error
	Barrier(ctx context.Context) error
	VerifyLeader(ctx context.Context) error
	// Term is this node's Raft term: it has voted in no later one.
	Term() uint64
	// Quorum is which quorum this node belongs to: a later one was founded by hand.
	Quorum() cluster.Quorum
	TransferLeadership(ctx context.Context) error
}

var _ Cluster = (*cluster.Cluster)(nil)

// LocalAgent is what the control plane needs of the agent of its own node.
type LocalAgent interface {
	// RecordEvent takes an event of this node into the stream that all voters hear.
	RecordEvent(e *pb.Event)
	// Witnessed says whether a voter on another node has the newest record of an instance of this node.
	Witnessed(instanceID string) bool
}

// Server is one node's part of the control plane: it gathers facts while it is a voter, and acts on
// them while it leads.
type Server struct {
	pb.UnimplementedControlPlaneServiceServer

	cfg     Config
	cluster Cluster
	fsm     *raftfsm.FSM
	peers   *rpc.Peers
	local   LocalAgent

	lossGrace atomic.Int64 // the configured one, until it is changed; a time.Duration
	view      *view
	events    *EventLog
	reporters reporters
	board     *board
	usages    *usages
	metrics   *metrics

	copying sync.Mutex // held while a voter's copy is compared with this node's and taken over; taken before view.mu

	mu   sync.Mutex // guards lead
	lead *lead      // nil while this node does not lead
}

// New returns a control plane that does nothing before Run.
func New(cfg Config, c Cluster, fsm *raftfsm.FSM, peers *rpc.Peers, local LocalAgent) *Server {
	s := &Server{
		cfg:     cfg.withDefaults(),
		cluster: c,
		fsm:     fsm,
		peers:   peers,
		local:   local,
		view:    newView(cfg.NodeID),
		events:  NewEventLog(),
		board:   newBoard(),
		usages:  newUsages(),
		metrics: newMetrics(),
	}
	s.SetNodeLossGrace(s.cfg.NodeLossGrace)
	return s
}

// SetNodeLossGrace changes how long a node must stay away before what ran there is started elsewhere.
func (s *Server) SetNodeLossGrace(d time.Duration) { s.lossGrace.Store(int64(d)) }

// Register adds the services to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	pb.RegisterControlPlaneServiceServer(g, s)
	pb.RegisterCatalogServiceServer(g, &catalogService{server: s})
	pb.RegisterProviderServiceServer(g, &providerService{server: s})
}

// leading returns the present leadership, or NO_LEADER where this node does not lead (yet).
func (s *Server) leading() (*lead, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return nil, s.notLeading()
	}
	return s.lead, nil
}

func (s *Server) notLeading() error {
	return rpc.Errorf(rpc.NoLeader, "node %s does not lead the cluster now; the next leader will answer, try again", s.cfg.NodeName)
}

// agent returns a client of a node's agent.
func (s *Server) agent(m cluster.Member) (pb.NodeAgentServiceClient, error) {
	conn, err := s.peers.Conn(m.RPCAddr)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", m.Name, err)
	}
	return pb.NewNodeAgentServiceClient(conn), nil
}

// member returns what gossip knows of a node.
func (s *Server) member(nodeID string) (cluster.Member, bool) {
	for _, m := range s.cluster.Members() {
		if m.NodeID == nodeID {
			return m, true
		}
	}
	return cluster.Member{}, false
}

// nodeID returns the id of the node that a name or id stands for.
func (s *Server) nodeID(ref string) (string, error) {
	for _, n := range s.fsm.Nodes() {
		if n.GetNodeId() == ref || n.GetName() == ref {
			return n.GetNodeId(), nil
		}
	}
	return "", rpc.Errorf(rpc.NodeNotFound, "no node has the name or id %q; see wasmatrix members", ref)
}

// reachable says whether a node is worth a call: gossip does not think it dead or gone.
func reachable(m cluster.Member) bool { return m.State == "alive" || m.State == "suspect" }

// refError turns the errors of a reference into those of the contract.
func refError(err error) error {
	if missing, ok := errors.AsType[*fact.NotFoundError](err); ok {
		return rpc.Errorf(rpc.InstanceNotFound, "%w", missing)
	}
	if ambiguous, ok := errors.AsType[*fact.AmbiguousError](err); ok {
		return rpc.Errorf(rpc.InvalidRequest, "%w", ambiguous)
	}
	return err
}

// clusterEvent tells all voters of something that happened to the cluster, and by which request, if by one.
func (s *Server) clusterEvent(ctx context.Context, kind, nodeID, name string, details map[string]string) {
	s.local.RecordEvent(&pb.Event{Type: kind, NodeId: nodeID, Name: name, Details: tracing.Details(ctx, details)})
}

// whileLeading returns a context that ends with the call or with the leadership, whichever is first.
func whileLeading(ctx context.Context, l *lead) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}
