package replica

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

type placeOf = pb.ProviderPlace

// Group is this node's part in the group of nodes that replicates keys and values. Until Follow names a founder, it has
// no disk, no connection and no timer.
type Group struct {
	cfg    Config
	timing timing
	news   chan struct{} // has a token when keepSeat is to look

	switching sync.Mutex // held while the seat changes, around mu

	mu      sync.Mutex // guards what follows; a leaf
	wanted  *pb.ReplicaGroup
	seat    *seat // nil before this node is in a group
	leader  leadership
	changed chan struct{}
	closed  bool
}

// leadership is who leads, as far as this node knows.
type leadership struct {
	nodeID string
	self   bool
}

// New returns a group that does nothing yet.
func New(cfg Config) (*Group, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Group{cfg: cfg, timing: cfg.timing(), news: make(chan struct{}, 1), changed: make(chan struct{})}
	return g, g.registerMetrics()
}

// Run takes this node's part in the group until ctx ends. A node that was in a group before is in it again at once. What
// is wrong with this part ends nothing else: it is logged and tried again.
func (g *Group) Run(ctx context.Context) error {
	if err := removeLeftovers(g.working()); err != nil {
		return fmt.Errorf("clear the working stores: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	for _, keep := range []func(context.Context){g.keepSeat, g.keepLeadership, g.keepMembers, g.keepLog} {
		work.Go(func() error {
			keep(ctx)
			return nil
		})
	}
	return work.Wait()
}

// handOverTimeout is how long Close waits for another node to lead.
const handOverTimeout = 2 * time.Second

// Close hands leadership over, if there is somebody to take it, and stops. It comes after Run has returned, or instead.
func (g *Group) Close() error {
	g.switching.Lock()
	defer g.switching.Unlock()
	g.mu.Lock()
	s := g.seat
	g.seat, g.closed = nil, true
	g.mu.Unlock()
	g.unregisterMetrics()
	if s == nil {
		return nil
	}
	if s.raft.State() == raft.Leader && len(votersOf(s.raft)) > 1 {
		ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
		defer cancel()
		if err := s.wait(ctx, s.raft.LeadershipTransfer()); err != nil {
			g.cfg.Log.Info("nobody took the lead of the replicas over; the others will elect", "err", err)
		}
	}
	err := s.close()
	g.look()
	return err
}

// Follow tells the group which founding of it there is, and which nodes are to be in it; nil for none yet. The
// newest word counts, and is followed by Run.
func (g *Group) Follow(wanted *pb.ReplicaGroup) {
	g.mu.Lock()
	g.wanted = wanted
	g.mu.Unlock()
	g.look()
}

// look has the loops look again.
func (g *Group) look() {
	g.mu.Lock()
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
}

// Changed returns a channel that is closed when the leader or what is wanted may have changed.
func (g *Group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Leader returns who leads the group as far as this node knows, "" for nobody; self is true where its stores
// serve. A node that is not in the group knows nothing.
func (g *Group) Leader() (nodeID string, self bool) {
	s := g.current()
	if s == nil {
		return "", false
	}
	_, id := s.raft.LeaderWithID()
	if string(id) != g.cfg.NodeID {
		return string(id), false
	}
	if s.leads() {
		return g.cfg.NodeID, true
	}
	return "", false // it was elected this moment, and does not know yet all that was
}

func (g *Group) wantedGroup() *pb.ReplicaGroup {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wanted
}

func (g *Group) current() *seat {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seat
}

// sit takes a seat, the one before being closed. switching is held.
func (g *Group) sit(ctx context.Context, p place) error {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return nil
	}
	s, err := g.openSeat(ctx, p)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.seat = s
	g.mu.Unlock()
	g.look()
	return nil
}

// rest is how long keepSeat waits before it tries again what the disk did not take.
const rest = time.Second

// keepSeat takes this node's place in the newest founding, and builds anew a store that broke.
func (g *Group) keepSeat(ctx context.Context) {
	for {
		changed := g.Changed()
		var again <-chan time.Time
		if err := g.follow(ctx); err != nil {
			g.cfg.Log.ErrorContext(ctx, "this node could not take its place in the group of replicas; trying again", "err", err)
			again = time.After(rest)
		}
		var broke <-chan struct{}
		if s := g.current(); s != nil {
			broke = s.fsm.broke
		}
		select {
		case <-changed:
		case <-again:
		case <-broke:
			if err := g.rebuild(ctx); err != nil {
				g.cfg.Log.ErrorContext(ctx, "the store of replicated keys could not be built anew; trying again", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// follow makes this node's place what the metadata's leader says.
func (g *Group) follow(ctx context.Context) error {
	g.switching.Lock()
	defer g.switching.Unlock()
	want := g.wantedGroup()
	id := identity{Generation: want.GetGeneration(), Founder: want.GetFounderId()}
	g.mu.Lock()
	old, closed := g.seat, g.closed
	g.mu.Unlock()
	have, ok, err := readPlace(g.cfg.Dir)
	if err != nil {
		return err
	}
	named := id.Founder == g.cfg.NodeID
	for _, v := range want.GetVoters() {
		named = named || v.GetNodeId() == g.cfg.NodeID
	}
	switch {
	case closed:
		return nil
	case id.Generation == 0 || id.Generation < have.Generation || ok && id == have.identity:
		if ok && old == nil { // it was left, and could not be taken again
			return g.sit(ctx, have)
		}
		return nil
	case !ok && !named:
		return nil // it is not needed
	}
	next := place{identity: id, Founding: id.Founder == g.cfg.NodeID, Dir: fmt.Sprintf("group-%d-%s", id.Generation, filepath.Base(id.Founder))}
	if ok {
		g.cfg.Log.WarnContext(ctx, "the group of replicas was founded anew", "generation", id.Generation, "founder", id.Founder, "path", have.Dir)
		if next.Founding {
			next.Dir = have.Dir // it goes on with what it has
		}
	}
	if err := g.leave(old); err != nil {
		g.cfg.Log.WarnContext(ctx, "the log before was not closed cleanly", "err", err)
	}
	if err := writePlace(g.cfg.Dir, next); err != nil {
		return fmt.Errorf("keep which group of replicas there is now: %w", err)
	}
	return g.sit(ctx, next)
}

// leave closes a seat, if there is one.
func (g *Group) leave(s *seat) error {
	if s == nil {
		return nil
	}
	g.mu.Lock()
	g.seat = nil
	g.mu.Unlock()
	g.look()
	return s.close()
}

// rebuild takes the same seat again, whose store is made from the snapshots and the log.
func (g *Group) rebuild(ctx context.Context) error {
	select {
	case <-time.After(rest): // a disk that is full is not empty at once
	case <-ctx.Done():
		return nil
	}
	g.switching.Lock()
	defer g.switching.Unlock()
	s := g.current()
	if s == nil {
		return nil
	}
	return errors.Join(g.leave(s), g.sit(ctx, s.place))
}

// votersOf returns the ids of the voters in the newest configuration.
func votersOf(r *raft.Raft) []string {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var ids []string
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}
