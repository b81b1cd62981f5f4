package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/e2e/chaos"
	"github.com/wasmatrix/wasmatrix/modulestore"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

const (
	// voters is how many nodes vote, at the most.
	voters = 3
	// formsWithin and settlesWithin are how long healed nodes may take to be one cluster again, and then to keep all
	// promises: as in the storms over real processes.
	formsWithin, settlesWithin = 2 * time.Minute, time.Minute
	// staysFor is how long they must go on keeping them.
	staysFor = 20 * time.Second
	// gossipEvery is how often gossip looks.
	gossipEvery = 5 * pace
)

// Sim is one schedule.
type Sim struct {
	Seed  uint64
	Shape chaos.Shape
	// How many clients ask.
	Clients int
	// Where the journals are, and the history.
	Dir string
	// Where the parts log to; nil for nowhere.
	Log *slog.Logger
	// Plant, where set, stands in front of what every node serves: for bugs that are to be found.
	Plant func(node string, req any, serve func() (any, error)) (any, error)

	log     *slog.Logger
	random  *rand.Rand // of the driver
	net     *network
	quorum  *quorum
	nodes   []*node
	byID    map[string]*node
	engine  *wasm.Engine
	store   *modulestore.Store
	module  string
	history *chaos.History

	mu  sync.Mutex // guards err
	err error      // what went wrong that should not
}

// Run runs the schedule, and returns the promises that were not kept. It runs in a bubble of testing/synctest.
func (s *Sim) Run(ctx context.Context) (found []chaos.Violation, err error) {
	s.log = s.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.random = rand.New(rand.NewPCG(s.Seed, 0x51b))
	s.net, s.byID = newNetwork(s.Seed), map[string]*node{}
	s.quorum = newQuorum(s.Seed, s.net)
	if s.store, s.module, err = storeGuest(filepath.Join(s.Dir, "modules")); err != nil {
		return nil, err
	}
	if s.engine, err = wasm.New(ctx, wasm.Config{}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.engine.Close(context.WithoutCancel(ctx))) }()
	if s.history, err = chaos.NewHistory(filepath.Join(s.Dir, "history.jsonl")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.history.Close()) }()
	return s.run(ctx)
}

func (s *Sim) run(ctx context.Context) (found []chaos.Violation, err error) {
	for i := range s.Shape.Nodes {
		n := &node{
			sim: s, id: fmt.Sprintf("%08d-0000-4000-8000-000000000000", i+1), name: fmt.Sprintf("n%d", i+1), addr: fmt.Sprintf("10.0.0.%d:7401", i+1),
			dir: filepath.Join(s.Dir, fmt.Sprintf("n%d", i+1)),
		}
		if err := os.Mkdir(n.dir, 0o700); err != nil {
			return nil, err
		}
		if i < voters && s.Shape.Nodes >= voters || i == 0 {
			n.voter = &voter{id: n.id, addr: n.addr}
			s.quorum.voters = append(s.quorum.voters, n.voter)
		}
		s.nodes, s.byID[n.id] = append(s.nodes, n), n
	}
	defer func() { err = errors.Join(err, s.takeDown()) }()
	for _, n := range s.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	driven, stop := context.WithCancel(ctx)
	var driver sync.WaitGroup
	driver.Go(func() { s.drive(driven) })
	defer driver.Wait()
	defer stop()
	if err := s.formed(ctx); err != nil {
		return nil, fmt.Errorf("before the first fault: %w", err)
	}
	clients := newLoad(s)
	for _, round := range chaos.Plan(s.Seed, s.Shape) {
		if err := s.round(ctx, round, clients); err != nil {
			return nil, err
		}
		if found, err = s.settled(ctx, round.Number); err != nil || len(found) > 0 {
			return found, err
		}
	}
	return nil, s.failure()
}

// round lets the faults of a round happen under load, and heals all.
func (s *Sim) round(ctx context.Context, round chaos.Round, clients *load) error {
	s.log.InfoContext(ctx, "round", "number", round.Number, "faults", fmt.Sprint(round.Faults))
	s.history.Begin(round.Number)
	s.net.setRough(true)
	loaded, end := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { clients.during(loaded, round.Number) })
	err := (&nemesis{sim: s}).strike(ctx, round)
	s.net.setRough(false)
	s.history.Add(chaos.Event{What: chaos.Healed})
	err = errors.Join(err, sleep(ctx, time.Second))
	end()
	work.Wait()
	if err := errors.Join(err, s.failure()); err != nil {
		return err
	}
	if err := clients.resumeAll(ctx); err != nil {
		return err
	}
	if err := s.formed(ctx); err != nil {
		return err
	}
	s.history.Add(chaos.Event{What: chaos.Formed})
	return nil
}

// settled looks until the promises are kept or time is up, and then whether they stay kept.
func (s *Sim) settled(ctx context.Context, round int) ([]chaos.Violation, error) {
	end := time.Now().Add(settlesWithin)
	var since time.Time // when they were first seen to be kept
	for {
		found, err := s.judge(ctx, round)
		switch {
		case err == nil && len(found) == 0 && since.IsZero():
			since = time.Now()
		case err == nil && len(found) == 0 && time.Since(since) > staysFor:
			return nil, s.failure()
		case err == nil && len(found) == 0:
		case !since.IsZero(), time.Now().After(end):
			if err != nil {
				err = fmt.Errorf("the nodes could not be looked at: %w", err)
			}
			return found, errors.Join(err, s.failure())
		}
		pause := time.Second
		if !since.IsZero() {
			pause = staysFor / 4
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func (s *Sim) judge(ctx context.Context, round int) ([]chaos.Violation, error) {
	seen, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	look := chaos.Event{Time: time.Now(), Round: round, What: chaos.Looked, Seen: seen}
	return slices.DeleteFunc(chaos.Check(append(s.history.Events(), look)), func(v chaos.Violation) bool {
		return v.Round != round
	}), nil
}

// drive has time pass for what is simulated.
func (s *Sim) drive(ctx context.Context) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.quorum.step()
		if n%int(gossipEvery/pace) == 0 {
			s.gossip()
		}
	}
}

// gossip has each node hear of the others: those that it reaches, by itself or through a third.
func (s *Sim) gossip() {
	lives := s.alive()
	direct := func(a, b *node) bool {
		return lives[a] != nil && lives[b] != nil && s.net.joined(a.addr, b.addr)
	}
	reaches := func(a, b *node) bool {
		return direct(a, b) || slices.ContainsFunc(s.nodes, func(over *node) bool { return direct(a, over) && direct(over, b) })
	}
	for _, n := range s.nodes {
		l := lives[n]
		if l == nil || s.net.isFrozen(n.addr) {
			continue
		}
		var leader cluster.Leadership
		for _, other := range s.nodes {
			if direct(n, other) {
				if hears := lives[other].cluster.Leadership(); hears.NodeID != "" && hears.Term > leader.Term {
					hears.Self = false
					leader = hears
				}
			}
		}
		l.cluster.look(reaches, leader)
	}
}

// alive returns the processes that are there.
func (s *Sim) alive() map[*node]*life {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	lives := map[*node]*life{}
	for _, l := range s.net.nodes {
		lives[l.node] = l
	}
	return lives
}

func (s *Sim) takeDown() error {
	var errs []error
	for _, n := range s.nodes {
		if n.life != nil {
			errs = append(errs, n.kill())
		}
	}
	s.net.close()
	return errors.Join(errs...)
}

func (s *Sim) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

func (s *Sim) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
