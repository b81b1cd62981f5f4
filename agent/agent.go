package agent

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/journal"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

// Voter is one node of the Raft quorum, to which the agent reports.
type Voter struct {
	NodeID string
	Addr   string // where it serves gRPC; empty while nobody knows
}

// VoterFinder knows the voters.
type VoterFinder interface {
	// Voters returns the voters as they are known now.
	Voters() []Voter
	// Changed returns a channel that is closed once Voters may answer something else.
	Changed() <-chan struct{}
	// Term returns the Raft term that this node is in: if it is a voter, it has voted in no later one.
	Term() uint64
}

// Agent runs instances on one host. New makes one; it takes orders from then on, and reports while
// Run runs.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	engine  *wasm.Engine
	store   *modulestore.Store
	peers   *rpc.Peers
	voters  VoterFinder
	metrics *metrics
	calls   *calls
	counts  counts

	bootID    string
	facts     *facts
	fetcher   *fetcher
	journal   *journal.Journal // nil where none is kept
	keeper    *keeper
	contact   *contact
	reports   *reports
	logLimits outputLimits
	turns     chan struct{} // a place in it is the right to instantiate
	pushes    chan struct{} // a place in it is the right to receive a module
	healthy   atomic.Bool

	life context.Context // ends with Run
	end  context.CancelCauseFunc
	work sync.WaitGroup // everything that outlives the call that began it

	mu        sync.Mutex // guards what follows; see DESIGN.md for the order of locks
	term      uint64     // the highest that an order carried
	leader    Leader
	epoch     uint64               // the highest that was heard of
	live      map[string]*instance // by id; the newest generation of each
	outputs   map[string]*output   // by id, of live instances and the last that ended
	retention retention
	closing   bool          // takes no more orders
	resumed   chan struct{} // closed once the cluster has said what becomes of what ran here before
}

// Leader is who sent the newest order.
type Leader struct {
	NodeID string
	Addr   string
	Term   uint64
}

// maxPushes is how many modules are received at once. Each may take 256 MiB of disk.
const maxPushes = 8

// New returns an agent that runs guests with engine, keeps modules in store and reaches others through
// peers. The caller keeps them open until Run has returned.
func New(cfg Config, engine *wasm.Engine, store *modulestore.Store, peers *rpc.Peers, voters VoterFinder) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	boot, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg:       cfg,
		log:       cfg.Log,
		engine:    engine,
		store:     store,
		peers:     peers,
		voters:    voters,
		bootID:    boot.String(),
		facts:     newFacts(cfg.NodeID + "/" + boot.String() + "/"),
		logLimits: outputLimits{bytes: cfg.LogBytes, rate: cfg.LogRate, burst: cfg.LogBurst},
		turns:     make(chan struct{}, runtime.NumCPU()),
		pushes:    make(chan struct{}, maxPushes),
		live:      map[string]*instance{},
		outputs:   map[string]*output{},
		resumed:   make(chan struct{}),
		counts:    counts{began: time.Now(), cores: runtime.GOMAXPROCS(0)},
		retention: retention{maxAge: cfg.KeepEnded, maxRecords: cfg.KeepRecords, maxLogs: cfg.KeepLogs},
	}
	a.life, a.end = context.WithCancelCause(context.Background())
	a.fetcher = newFetcher(a)
	a.keeper = newKeeper(store, cfg.KeepModules)
	a.contact = newContact()
	a.reports = newReports(a)
	a.calls = newCalls(a)
	if a.metrics, err = newMetrics(cfg.Registerer, a); err != nil {
		return nil, err
	}
	a.keeper.told = a.metrics.deletedModules.Inc
	return a, a.openJournal()
}

// Run reports to the voters and forgets what is too old, until ctx ends. When it returns, all
// instances have ended, and everything else that the agent started.
func (a *Agent) Run(ctx context.Context) error {
	a.healthy.Store(true)
	defer a.healthy.Store(false)

	stopJournal := a.runJournal()
	a.startResumed()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.reports.run(gctx) })
	g.Go(func() error { return a.sweep(gctx) })
	if a.journal != nil {
		g.Go(func() error { return a.noteFuel(gctx) })
	}
	err := g.Wait()

	a.mu.Lock()
	a.closing = true
	a.mu.Unlock()
	a.end(errLeaving)
	a.work.Wait()
	a.contact.expiry.Stop()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, stopJournal())
}

// Register puts the agent's services on a server.
func (a *Agent) Register(s grpc.ServiceRegistrar) {
	pb.RegisterNodeAgentServiceServer(s, &agentService{agent: a})
	pb.RegisterModuleServiceServer(s, &moduleService{agent: a})
}

// StopAll takes no further orders, stops every instance, and gives the voters a moment to hear of it:
// the last part of an orderly exit, before Run is ended. It gives up when ctx ends.
func (a *Agent) StopAll(ctx context.Context) {
	a.mu.Lock()
	a.closing = true
	all := make([]*instance, 0, len(a.live))
	for _, i := range a.live {
		i.stop(errLeaving)
		all = append(all, i)
	}
	a.mu.Unlock()
	for _, i := range all {
		select {
		case <-i.done:
		case <-ctx.Done():
			a.log.WarnContext(ctx, "instances have not ended in time", "err", context.Cause(ctx))
			return
		}
	}
	a.reports.flush(ctx)
}

// Term returns the highest term that an order carried.
func (a *Agent) Term() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.term
}

// Leader returns who sent the order with the highest term; zero before the first order.
func (a *Agent) Leader() Leader {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leader
}

// BootID returns the random id of this life of the agent.
func (a *Agent) BootID() string { return a.bootID }

// Load returns what the live instances take up.
func (a *Agent) Load() *pb.NodeLoad { return a.facts.load().message() }

// Counts returns how many records have each status; statuses without any are left out.
func (a *Agent) Counts() map[pb.InstanceStatus]int { return a.facts.countByStatus() }

// RecordEvent makes an event that happened on this node part of the agent's reports. It gives it an id, and
// fills in time and node where they are missing.
func (a *Agent) RecordEvent(e *pb.Event) {
	if e.Time == nil {
		e.Time = timestamppb.Now()
	}
	if e.NodeId == "" {
		e.NodeId = a.cfg.NodeID
	}
	a.facts.record(e)
}
