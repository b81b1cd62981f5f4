package provider

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// Config is what a host is told about its node.
type Config struct {
	NodeID, NodeName string
	// Path is the file that remembers what a leader said last. Empty for none. It holds secrets of backends.
	Path string
	// Open makes the engine of a provider that this node runs; it may block until ctx ends.
	Open func(ctx context.Context, d Definition) (Engine, error)
	// Keys replicates keys and values over the voters; nil where this node has no part in that.
	Keys Keys
	Log  *slog.Logger
	// Registerer takes the metrics; nil for nobody.
	Registerer prometheus.Registerer
}

// Definition is how a provider is to be.
type Definition struct {
	ID, Type string
	Settings capability.Settings
}

// Engine carries a provider's calls out. One of the three is set.
type Engine struct {
	KV        capability.KV
	HTTP      capability.HTTP
	Messaging capability.Messaging
	// Check says what is wrong with it now; nil where nothing can be.
	Check func(ctx context.Context) error
	// Close gives back what it holds; nil where that is nothing. Calls may be under way.
	Close func() error
	// Prompt says that its calls take no time worth a timeout, as those to a map.
	Prompt bool
}

// Keys is the group of nodes that replicates keys and values.
type Keys interface {
	// Follow takes over which nodes are to be in the group; nil while there is none.
	Follow(g *pb.ReplicaGroup)
	// Leader says which node carries calls out, and whether it is this one; empty while nobody is known to.
	Leader() (nodeID string, self bool)
	// Store returns the keys of one provider, to be used where this node leads.
	Store(providerID string) capability.KV
	// WithCallID gives a write a number, by which the group knows a repetition of it.
	WithCallID(ctx context.Context, id []byte) context.Context
}

// Host runs the providers of one node.
type Host struct {
	cfg   Config
	peers *rpc.Peers
	life  context.Context // ends with Close
	end   context.CancelFunc

	dropped prometheus.Counter // messages that another node did not take in time

	named atomic.Pointer[string] // the node that serves replicated keys, as another one said last

	setting sync.Mutex // held while a new table is taken over; guards table
	table   *pb.SetProvidersRequest

	mu      sync.RWMutex // guards entries
	entries map[string]*entry
}

// entry is one provider as this node knows it. It never changes: a change makes a new one.
type entry struct {
	def    Definition
	told   *pb.Provider
	places []*pb.ProviderPlace
	bad    error   // why its configuration can't be used
	here   *runner // where this node runs it; nil elsewhere
	keys   bool    // its keys are those of the replicas
}

// New returns a host that runs nothing before Start.
func New(cfg Config, peers *rpc.Peers) *Host {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{cfg: cfg, peers: peers, entries: map[string]*entry{}, dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wasmatrix_capability_relay_dropped_total",
		Help: "Messages that were dropped because the node of the guest had not taken the ones before.",
	})}
	h.life, h.end = context.WithCancel(context.Background())
	return h
}

// Start runs what the node was told last, before it was restarted.
func (h *Host) Start() error {
	if h.cfg.Registerer != nil {
		if err := errors.Join(h.cfg.Registerer.Register(h.dropped), h.cfg.Registerer.Register(newCollector(h))); err != nil {
			return fmt.Errorf("register the metrics of the providers: %w", err)
		}
	}
	if h.cfg.Path == "" {
		return nil
	}
	raw, err := os.ReadFile(h.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what is known of the providers: %w", err)
	}
	table := &pb.SetProvidersRequest{}
	if err := proto.Unmarshal(raw, table); err != nil {
		h.cfg.Log.Warn("what this node remembers of the providers is damaged; the leader tells it again", "path", h.cfg.Path, "err", err)
		return nil
	}
	h.setting.Lock()
	defer h.setting.Unlock()
	h.take(table)
	return nil
}

// Close ends all engines and waits for them. Calls fail from then on.
func (h *Host) Close() {
	h.end()
	h.setting.Lock()
	defer h.setting.Unlock()
	h.mu.Lock()
	entries := h.entries
	h.entries = map[string]*entry{}
	h.mu.Unlock()
	for _, e := range entries {
		if e.here != nil {
			e.here.stop()
		}
	}
}

// Set takes over what a leader says of the providers, and returns what is wrong with those that this node runs. What an
// earlier leader said, or this one before, is not taken back.
func (h *Host) Set(req *pb.SetProvidersRequest) map[string]string {
	h.setting.Lock()
	if now := h.table; now == nil || later(req, now) {
		h.take(req)
		h.remember(req)
	}
	h.setting.Unlock()
	return h.failures()
}

func later(a, b *pb.SetProvidersRequest) bool {
	if a.GetFence().GetTerm() != b.GetFence().GetTerm() {
		return a.GetFence().GetTerm() > b.GetFence().GetTerm()
	}
	return a.GetVersion() > b.GetVersion()
}

// take makes the node's providers those of a table; h.setting is held, or nobody else is there yet.
func (h *Host) take(table *pb.SetProvidersRequest) {
	h.table = table
	if h.cfg.Keys != nil {
		h.cfg.Keys.Follow(table.GetReplicas())
	}
	h.mu.RLock()
	before := maps.Clone(h.entries)
	h.mu.RUnlock()
	entries := make(map[string]*entry, len(table.GetProviders()))
	for _, p := range table.GetProviders() {
		entries[p.GetProviderId()] = h.entryOf(p, table, before[p.GetProviderId()])
	}
	h.mu.Lock()
	h.entries = entries
	h.mu.Unlock()
	for id, old := range before {
		if old.here != nil && (entries[id] == nil || entries[id].here != old.here) {
			old.here.stop()
		}
	}
}

// entryOf makes the entry of a provider. It goes on with the engine that runs already, unless that is configured otherwise.
func (h *Host) entryOf(p *pb.Provider, table *pb.SetProvidersRequest, before *entry) *entry {
	e := &entry{
		def:  Definition{ID: p.GetProviderId(), Type: p.GetProviderType()},
		told: p, places: table.GetPlaces()[p.GetProviderId()].GetNodes(),
	}
	if e.def.Settings, e.bad = capability.ReadSettings(p.GetProviderType(), p.GetConfig()); e.bad != nil {
		return e
	}
	e.keys = e.def.Type == capability.TypeKV && e.def.Settings.Backend == capability.BackendRaft
	runs := p.GetState() == pb.ProviderState_PROVIDER_STATE_RUNNING && !e.keys && h.isAmong(e.places)
	switch {
	case !runs:
	case before != nil && before.here != nil && before.def == e.def:
		e.here = before.here
	default:
		e.here = h.start(e.def)
	}
	return e
}

func (h *Host) isAmong(places []*pb.ProviderPlace) bool {
	for _, p := range places {
		if p.GetNodeId() == h.cfg.NodeID {
			return true
		}
	}
	return false
}

// remember writes down what was told, for a restart without a leader.
func (h *Host) remember(table *pb.SetProvidersRequest) {
	if h.cfg.Path == "" {
		return
	}
	raw, err := proto.Marshal(table)
	if err == nil {
		err = writeSecret(h.cfg.Path, raw)
	}
	if err != nil { // the node goes on; after a restart the leader tells it again
		h.cfg.Log.Warn("what the leader said of the providers could not be kept", "path", h.cfg.Path, "err", err)
	}
}

// writeSecret writes a file that only its owner may read, whole or not at all.
func writeSecret(path string, raw []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// firstTry is how long whoever tells of a provider waits for the first attempt to start it: most backends that are not
// there say so at once.
const firstTry = 2 * time.Second

// failures returns what is wrong with the providers of this node, by id. One that is still being started is not.
func (h *Host) failures() map[string]string {
	h.mu.RLock()
	entries := h.entries
	h.mu.RUnlock()
	wrong := map[string]string{}
	patience := time.NewTimer(firstTry)
	defer patience.Stop()
	for id, e := range entries {
		if e.bad != nil {
			wrong[id] = e.bad.Error()
		}
		if e.here == nil {
			continue
		}
		select {
		case <-e.here.tried:
		case <-patience.C:
			patience.Reset(0) // nor for the others
		}
		if _, err := e.here.engine(); err != nil && !errors.Is(err, errOpening) {
			wrong[id] = err.Error()
		}
	}
	return wrong
}

// runner keeps one provider of this node going.
type runner struct {
	def   Definition
	log   *slog.Logger
	open  func(ctx context.Context, d Definition) (Engine, error)
	tried chan struct{} // closed after the first attempt
	ended chan struct{}
	ctx   context.Context
	end   context.CancelFunc

	mu  sync.RWMutex // guards all below
	now Engine
	err error // why it does not serve
}

const (
	// checkEvery is how often an engine is asked whether it is well.
	checkEvery = 5 * time.Second
	// openTimeout bounds one attempt to reach a backend.
	openTimeout = 5 * time.Second
	// The wait between two attempts doubles from the first to the second.
	reopenFirst = 100 * time.Millisecond
	reopenMost  = 5 * time.Second
)

var errOpening = capability.Errorf(capability.Unavailable, "it is being started")

func (h *Host) start(d Definition) *runner {
	r := &runner{def: d, log: h.cfg.Log.With("provider", d.ID), open: h.cfg.Open, tried: make(chan struct{}), ended: make(chan struct{}), err: errOpening}
	r.ctx, r.end = context.WithCancel(h.life)
	go r.run()
	return r
}

// stop ends the provider and waits for it.
func (r *runner) stop() {
	r.end()
	<-r.ended
}

func (r *runner) run() {
	defer close(r.ended)
	tried := sync.OnceFunc(func() { close(r.tried) })
	defer tried()
	for wait := reopenFirst; ; wait = min(2*wait, reopenMost) {
		ctx, cancel := context.WithTimeout(r.ctx, openTimeout)
		engine, err := r.open(ctx, r.def)
		cancel()
		if r.ctx.Err() != nil && err == nil {
			closeEngine(engine)
		}
		if r.ctx.Err() != nil {
			return
		}
		if err == nil {
			r.set(engine, nil)
			r.log.Info("a provider runs", "provider_type", r.def.Type, "backend", capability.Redact(r.def.Settings.Backend))
			r.watch(engine, tried)
			r.set(Engine{}, capability.Errorf(capability.Unavailable, "it is being stopped"))
			closeEngine(engine)
			return
		}
		if r.fails(err) {
			r.log.Warn("a provider can't be started; trying again", "provider_type", r.def.Type, "backend", capability.Redact(r.def.Settings.Backend), "err", err)
		}
		tried()
		select {
		case <-time.After(wait):
		case <-r.ctx.Done():
			return
		}
	}
}

func closeEngine(e Engine) {
	if e.Close != nil {
		_ = e.Close() // what it held is gone in any case
	}
}

// watch asks an engine whether it is well, until the provider is stopped; asked is called after the first time. What is
// wrong is shown to users; calls are made all the same, as the engine knows best.
func (r *runner) watch(e Engine, asked func()) {
	if e.Check == nil {
		asked()
		<-r.ctx.Done()
		return
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		if !first {
			asked()
			select {
			case <-tick.C:
			case <-r.ctx.Done():
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.ctx, openTimeout)
		err := e.Check(ctx)
		cancel()
		switch {
		case r.ctx.Err() != nil:
			return
		case err == nil:
			if r.fails(nil) {
				r.log.Info("a provider works again")
			}
		case r.fails(err):
			r.log.Warn("a provider fails", "err", err)
		}
	}
}

func (r *runner) set(e Engine, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.err = e, err
}

// fails notes what is wrong, or that nothing is, and says whether that is news.
func (r *runner) fails(err error) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = (err == nil) != (r.err == nil) || errors.Is(r.err, errOpening)
	r.err = err
	return news
}

// engine returns the engine, or why there is none that works.
func (r *runner) engine() (Engine, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.now, r.err
}
