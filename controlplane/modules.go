package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// votersSettle is how soon after a change of the voters modules are looked after: one change rarely
	// comes alone.
	votersSettle = time.Second
	// askModulesAtOnce is how many nodes are asked about modules at the same time, and
	// askModulesTimeout how long each may take.
	askModulesAtOnce  = 32
	askModulesTimeout = 3 * time.Second
	// repairAtOnce is how many modules are on their way at the leader's word: few, for starts go first.
	repairAtOnce = 4
	// repairTimeout ends a fetch; what came is kept, and the next one goes on from there. It is what the
	// largest module takes at 1 MiB a second.
	repairTimeout = 5 * time.Minute
)

// moduleUse is what the view knows of the use of one module.
type moduleUse struct {
	live, ended int
	needed      bool                // by an instance past its start: while it starts, its agent sees to the module
	nodes       map[string]struct{} // ids of the nodes where live instances need it
}

// moduleUses returns the use of each module that an instance references.
func (s *Server) moduleUses() map[string]*moduleUse {
	s.view.mu.RLock()
	all := s.view.index.All()
	s.view.mu.RUnlock()
	uses := map[string]*moduleUse{}
	for _, i := range all {
		hash := i.GetSpec().GetModuleHash()
		if hash == "" {
			continue
		}
		use := uses[hash]
		if use == nil {
			use = &moduleUse{nodes: map[string]struct{}{}}
			uses[hash] = use
		}
		switch {
		case i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_STARTING:
			use.live++
		case fact.Live(i.GetStatus()):
			use.live++
			use.needed = true
			use.nodes[i.GetNodeId()] = struct{}{}
		default:
			use.ended++
			use.needed = true
		}
	}
	return uses
}

// whoReferences names a few of the instances that reference a module, the live ones first.
func (s *Server) whoReferences(hash string) string {
	const most = 3
	found, _ := fact.Select(s.view.find("", ""), &pb.ListInstancesRequest{All: true})
	found = slices.DeleteFunc(found, func(i *pb.Instance) bool { return i.GetSpec().GetModuleHash() != hash })
	slices.SortStableFunc(found, func(a, b *pb.Instance) int {
		switch {
		case fact.Live(a.GetStatus()) == fact.Live(b.GetStatus()):
			return 0
		case fact.Live(a.GetStatus()):
			return -1
		}
		return 1
	})
	var names []string
	for _, i := range found[:min(most, len(found))] {
		names = append(names, fmt.Sprintf("%s (%s)", i.GetSpec().GetName(), i.GetInstanceId()))
	}
	if rest := len(found) - len(names); rest > 0 {
		names = append(names, fmt.Sprintf("%d more", rest))
	}
	return strings.Join(names, ", ")
}

// knowsAll says whether every node that is there has told this leader what it runs. A dead one's
// records are in the view; what it ran besides, it has the modules of.
func (s *Server) knowsAll(l *lead) bool {
	for _, m := range s.cluster.Members() {
		if reachable(m) && !l.hasAnswered(m.NodeID) {
			return false
		}
	}
	return !l.recovering()
}

// holdings is which nodes hold which modules, as they said themselves.
type holdings struct {
	modules map[string]*pb.Module       // by hash, the oldest copy of each
	holders map[string][]cluster.Member // by hash
	silent  []nodeFailure               // who did not say, and why
}

// nodeFailure is what became of a call to one node.
type nodeFailure struct {
	node cluster.Member
	err  error
}

func (h *holdings) isSilent(nodeID string) bool {
	return slices.ContainsFunc(h.silent, func(f nodeFailure) bool { return f.node.NodeID == nodeID })
}

func (h *holdings) silentNames() []string {
	names := make([]string, 0, len(h.silent))
	for _, f := range h.silent {
		names = append(names, f.node.Name)
	}
	return names
}

// askHoldings asks all nodes what they hold, by a call that answers with that.
func (s *Server) askHoldings(ctx context.Context, ask func(context.Context, pb.ModuleServiceClient) ([]*pb.Module, error)) holdings {
	var mu sync.Mutex // guards h
	h := holdings{modules: map[string]*pb.Module{}, holders: map[string][]cluster.Member{}}
	h.silent = s.askModules(ctx, func(ctx context.Context, m cluster.Member, c pb.ModuleServiceClient) error {
		held, err := ask(ctx, c)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, module := range held {
			hash := module.GetModuleHash()
			h.holders[hash] = append(h.holders[hash], m)
			if known := h.modules[hash]; known == nil || module.GetStoredAt().AsTime().Before(known.GetStoredAt().AsTime()) {
				h.modules[hash] = module
			}
		}
		return nil
	})
	return h
}

// askModules makes a call to the module service of each node that has not left, some at a time. It
// returns the failures by the names of nodes, those that are dead among them.
func (s *Server) askModules(ctx context.Context, call func(context.Context, cluster.Member, pb.ModuleServiceClient) error) []nodeFailure {
	var (
		mu     sync.Mutex // guards failed
		failed []nodeFailure
		g      errgroup.Group
	)
	g.SetLimit(askModulesAtOnce)
	for _, m := range s.cluster.Members() {
		if m.State == "left" {
			continue
		}
		g.Go(func() error {
			if err := s.askModuleService(ctx, m, call); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, nodeFailure{m, err})
			}
			return nil
		})
	}
	_ = g.Wait() // each error is in failed
	slices.SortFunc(failed, func(a, b nodeFailure) int { return strings.Compare(a.node.Name, b.node.Name) })
	return failed
}

func (s *Server) askModuleService(ctx context.Context, m cluster.Member, call func(context.Context, cluster.Member, pb.ModuleServiceClient) error) error {
	if !reachable(m) {
		return rpc.Errorf(rpc.CommunicationFailure, "it is %s", m.State)
	}
	conn, err := s.peers.Conn(m.RPCAddr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askModulesTimeout)
	defer cancel()
	return call(ctx, m, pb.NewModuleServiceClient(conn))
}

// moduleCare is what a leader remembers from one look after the modules to the next.
type moduleCare struct {
	lost map[string]struct{} // modules that were found on no node; said once

	mu      sync.Mutex // guards what follows
	going   map[string]struct{}
	failing map[string]struct{} // repairs whose last attempt failed; said once
	turns   chan struct{}       // a place in it is the right to repair
	repairs sync.WaitGroup
}

// careForModules sees to it, for as long as this node leads, that the voters and the agents concerned
// hold what is referenced, and tells all nodes what that is, so that they can delete the rest.
func (s *Server) careForModules(l *lead) {
	if l.waitRecovered(l.ctx) != nil {
		return
	}
	care := &moduleCare{
		lost: map[string]struct{}{}, going: map[string]struct{}{}, failing: map[string]struct{}{},
		turns: make(chan struct{}, repairAtOnce),
	}
	defer care.repairs.Wait()
	for {
		changed := s.cluster.Changed()
		voters := s.reachableVoters()
		s.lookAfterModules(l, care, voters)
		if !s.waitToLookAgain(l, changed, voters) {
			return
		}
	}
}

// waitToLookAgain waits for the next round, which comes early if the voters change. It returns false
// at the end of the leadership.
func (s *Server) waitToLookAgain(l *lead, changed <-chan struct{}, voters []string) bool {
	again := time.NewTimer(s.cfg.ModuleRound)
	defer again.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-changed:
			changed = s.cluster.Changed()
			if settled == nil && !slices.Equal(voters, s.reachableVoters()) {
				settled = time.After(votersSettle)
			}
		case <-settled:
			return true
		case <-again.C:
			return true
		case <-l.ctx.Done():
			return false
		}
	}
}

func (s *Server) reachableVoters() []string {
	voters := slices.DeleteFunc(slices.Clone(s.cluster.Voters()), func(id string) bool { return !s.orderable(id) })
	slices.Sort(voters)
	return voters
}

// lookAfterModules is one round: all nodes hear what is referenced and say what they hold, and those
// that lack something begin to fetch it.
func (s *Server) lookAfterModules(l *lead, care *moduleCare, voters []string) {
	complete := s.knowsAll(l) // asked first: what it covers is in the view by now
	uses := s.moduleUses()
	req := &pb.KeepModulesRequest{Fence: l.fence, ModuleHashes: slices.Sorted(maps.Keys(uses)), Complete: complete}
	held := s.askHoldings(l.ctx, func(ctx context.Context, c pb.ModuleServiceClient) ([]*pb.Module, error) {
		resp, err := c.KeepModules(ctx, req)
		return resp.GetModules(), err
	})
	if l.ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	l.holders = held.holders
	l.mu.Unlock()
	s.tellLost(care, uses, held)
	l.mu.Lock()
	l.lostModules = len(care.lost)
	l.mu.Unlock()
	for hash, use := range uses {
		holders := held.holders[hash]
		if !use.needed || len(holders) == 0 {
			continue
		}
		wanted := maps.Clone(use.nodes)
		for _, id := range voters {
			wanted[id] = struct{}{}
		}
		for id := range wanted {
			m, ok := s.member(id)
			holds := slices.ContainsFunc(holders, func(h cluster.Member) bool { return h.NodeID == id })
			if ok && reachable(m) && !held.isSilent(id) && !holds {
				s.repair(l, care, m, hash, holders)
			}
		}
	}
}

// tellLost warns once of each module that is needed and that nobody holds. While somebody who is
// there is silent, that is not known.
func (s *Server) tellLost(care *moduleCare, uses map[string]*moduleUse, held holdings) {
	maps.DeleteFunc(care.lost, func(hash string, _ struct{}) bool {
		return uses[hash] == nil || len(held.holders[hash]) > 0
	})
	if slices.ContainsFunc(held.silent, func(f nodeFailure) bool { return reachable(f.node) }) {
		return
	}
	for hash, use := range uses {
		if _, told := care.lost[hash]; told || !use.needed || len(held.holders[hash]) > 0 {
			continue
		}
		care.lost[hash] = struct{}{}
		s.cfg.Log.Warn("no node that is there holds a module that instances need; push it again with wasmatrix module push",
			"module", hash, "instances", use.live, "referenced_by", s.whoReferences(hash))
	}
}

// repair has a node fetch a module that it lacks, in the background, unless that is under way.
func (s *Server) repair(l *lead, care *moduleCare, m cluster.Member, hash string, holders []cluster.Member) {
	key := m.NodeID + "/" + hash
	care.mu.Lock()
	defer care.mu.Unlock()
	if _, already := care.going[key]; already {
		return
	}
	care.going[key] = struct{}{}
	care.repairs.Go(func() {
		var err error
		select {
		case care.turns <- struct{}{}:
			err = s.ensureModule(l, m, hash, holders)
			<-care.turns
		case <-l.ctx.Done():
		}
		care.mu.Lock()
		_, failedBefore := care.failing[key]
		delete(care.going, key)
		delete(care.failing, key)
		if err != nil {
			care.failing[key] = struct{}{}
		}
		care.mu.Unlock()
		if err != nil && l.ctx.Err() == nil {
			s.metrics.repairsFailed.Inc()
		}
		switch {
		case l.ctx.Err() != nil:
		case err == nil:
			s.metrics.repairs.Inc()
			s.cfg.Log.Info("a node lacked a module that is referenced, and has fetched it", "module", hash, "peer", m.Name)
		case !failedBefore:
			s.cfg.Log.Warn("a node lacks a module that is referenced and could not fetch it; trying again", "module", hash, "peer", m.Name, "err", err)
		}
	})
}

func (s *Server) ensureModule(l *lead, m cluster.Member, hash string, holders []cluster.Member) error {
	conn, err := s.peers.Conn(m.RPCAddr)
	if err != nil {
		return err
	}
	sources := make([]*pb.ModuleSource, 0, len(holders))
	for _, n := range rand.Perm(len(holders)) { //nolint:gosec // only so that not all fetch from the same
		sources = append(sources, &pb.ModuleSource{NodeId: holders[n].NodeID, RpcAddr: holders[n].RPCAddr})
	}
	ctx, cancel := context.WithTimeoutCause(l.ctx, repairTimeout, errors.New("the fetch takes too long"))
	defer cancel()
	_, err = pb.NewModuleServiceClient(conn).EnsureModule(ctx, &pb.EnsureModuleRequest{Fence: l.fence, ModuleHash: hash, Sources: sources})
	return err
}
