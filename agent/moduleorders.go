package agent

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// KeepModules implements the RPC of that name. Modules are deleted here and nowhere else, so never
// without a leader that has just said what is referenced.
func (s *moduleService) KeepModules(_ context.Context, req *pb.KeepModulesRequest) (*pb.KeepModulesResponse, error) {
	a := s.agent
	if err := a.obey(req.GetFence()); err != nil {
		return nil, err
	}
	referenced := make([]modulestore.Hash, 0, len(req.GetModuleHashes()))
	for _, s := range req.GetModuleHashes() {
		if hash, err := parseHash(s); err == nil { // what is no hash is held nowhere
			referenced = append(referenced, hash)
		}
	}
	now := time.Now()
	a.keeper.hear(referenced, req.GetComplete(), now)
	a.deleteIdleModules(now)
	held, err := a.heldModules()
	if err != nil {
		return nil, err
	}
	return &pb.KeepModulesResponse{Modules: held}, nil
}

// EnsureModule implements the RPC of that name.
func (s *moduleService) EnsureModule(ctx context.Context, req *pb.EnsureModuleRequest) (*pb.EnsureModuleResponse, error) {
	a := s.agent
	hash, err := parseHash(req.GetModuleHash())
	if err != nil {
		return nil, err
	}
	if err := a.obey(req.GetFence()); err != nil {
		return nil, err
	}
	done, err := a.beginWork()
	if err != nil {
		return nil, err
	}
	defer done()
	defer a.keeper.use(hash)()
	if err := a.fetcher.fetch(ctx, hash, req.GetSources()); err != nil {
		return nil, err
	}
	return &pb.EnsureModuleResponse{}, nil
}

// DropModule implements the RPC of that name.
func (s *moduleService) DropModule(ctx context.Context, req *pb.DropModuleRequest) (*pb.DropModuleResponse, error) {
	a := s.agent
	hash, err := parseHash(req.GetModuleHash())
	if err != nil {
		return nil, err
	}
	if err := a.obey(req.GetFence()); err != nil {
		return nil, err
	}
	if _, held := a.store.Has(hash); !held {
		return &pb.DropModuleResponse{}, nil
	}
	if _, referenced := a.referencedHere()[hash]; referenced {
		return nil, a.inUse(hash)
	}
	deleted, err := a.keeper.deleteUnused(hash)
	if err != nil {
		return nil, err
	}
	if !deleted {
		return nil, a.inUse(hash)
	}
	a.log.InfoContext(ctx, "deleted a module, as was asked", "module", string(hash))
	return &pb.DropModuleResponse{Dropped: true}, nil
}

func (a *Agent) inUse(hash modulestore.Hash) error {
	return rpc.Errorf(rpc.InvalidRequest, "module %s is in use on node %s", hash.Short(), a.cfg.NodeName)
}

// obey refuses the word of a leader whose term is over, and takes note of a new one.
func (a *Agent) obey(f *pb.Fence) error {
	a.mu.Lock()
	newer, err := a.fenceLocked(f)
	a.mu.Unlock()
	a.tellLeader(newer)
	return err
}

// beginWork counts a call among what Run waits for, unless the agent takes no more.
func (a *Agent) beginWork() (done func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return nil, rpc.Errorf(rpc.CommunicationFailure, "node %s is about to leave", a.cfg.NodeName)
	}
	a.work.Add(1)
	return a.work.Done, nil
}

// deleteIdleModules deletes what nothing has referenced for long.
func (a *Agent) deleteIdleModules(now time.Time) {
	held, err := a.store.List()
	if err != nil {
		a.log.Warn("could not look for modules to delete", "err", err)
		return
	}
	idle := a.keeper.idle(held, now)
	if len(idle) == 0 {
		return
	}
	here := a.referencedHere()
	for _, hash := range idle {
		if _, referenced := here[hash]; referenced { // the leader does not know of it yet
			continue
		}
		deleted, err := a.keeper.deleteIdle(hash, now)
		switch {
		case err != nil:
			a.log.Warn("could not delete a module that nothing references any more", "module", string(hash), "err", err)
		case deleted:
			a.log.Info("deleted a module that nothing has referenced for long", "module", string(hash), "duration", a.cfg.KeepModules)
		}
	}
}

// referencedHere returns the modules of this node's records, of ended instances too.
func (a *Agent) referencedHere() map[modulestore.Hash]struct{} {
	_, records := a.facts.snapshot()
	hashes := map[modulestore.Hash]struct{}{}
	for _, rec := range records {
		hashes[modulestore.Hash(rec.GetSpec().GetModuleHash())] = struct{}{}
	}
	return hashes
}

func (a *Agent) heldModules() ([]*pb.Module, error) {
	held, err := a.store.List()
	if err != nil {
		return nil, err
	}
	modules := make([]*pb.Module, 0, len(held))
	for _, m := range held {
		modules = append(modules, &pb.Module{
			ModuleHash: string(m.Hash), SizeBytes: uint64(m.Size), StoredAt: timestamppb.New(m.StoredAt),
		})
	}
	return modules, nil
}
