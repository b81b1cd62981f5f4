package controlplane

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	hashPrefix = "sha256:"
	// leastDigits is how much of a hash stands for it at the least, as with the ids of instances.
	leastDigits = 4
)

// catalogService answers about the modules of the whole cluster.
type catalogService struct {
	pb.UnimplementedCatalogServiceServer

	server *Server
}

// ListCatalog implements the RPC of that name.
func (c *catalogService) ListCatalog(ctx context.Context, _ *pb.ListCatalogRequest) (*pb.ListCatalogResponse, error) {
	s := c.server
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	if err := l.waitRecovered(ctx); err != nil {
		return nil, err
	}
	held := s.askHoldings(ctx, listModules)
	uses := s.moduleUses()
	resp := &pb.ListCatalogResponse{SilentNodes: held.silentNames()}
	for _, hash := range knownModules(held, uses) {
		m := &pb.CatalogModule{Module: held.modules[hash], NodeNames: namesOf(held.holders[hash])}
		if m.Module == nil {
			m.Module = &pb.Module{ModuleHash: hash}
		}
		if use := uses[hash]; use != nil {
			m.Instances, m.LiveInstances = uint32(use.live+use.ended), uint32(use.live)
		}
		resp.Modules = append(resp.Modules, m)
	}
	return resp, nil
}

func listModules(ctx context.Context, c pb.ModuleServiceClient) ([]*pb.Module, error) {
	resp, err := c.ListModules(ctx, &pb.ListModulesRequest{})
	return resp.GetModules(), err
}

// knownModules returns the hashes that are held or referenced, in order.
func knownModules(held holdings, uses map[string]*moduleUse) []string {
	known := slices.AppendSeq(slices.Collect(maps.Keys(held.modules)), maps.Keys(uses))
	slices.Sort(known)
	return slices.Compact(known)
}

func namesOf(members []cluster.Member) []string {
	names := make([]string, 0, len(members))
	for _, m := range members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// RemoveModule implements the RPC of that name. A start that comes in at the same time either keeps
// its agent's copy, from which the voters get theirs again, or finds no module.
func (c *catalogService) RemoveModule(ctx context.Context, req *pb.RemoveModuleRequest) (*pb.RemoveModuleResponse, error) {
	s := c.server
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	if err := l.waitRecovered(ctx); err != nil {
		return nil, err
	}
	held := s.askHoldings(ctx, listModules)
	uses := s.moduleUses()
	hash, err := resolveModule(req.GetRef(), knownModules(held, uses), held.silentNames())
	if err != nil {
		return nil, err
	}
	if use := uses[hash]; use != nil {
		return nil, s.referenced(hash, use)
	}
	return s.dropEverywhere(ctx, l, hash), nil
}

// dropEverywhere has each node delete a module.
func (s *Server) dropEverywhere(ctx context.Context, l *lead, hash string) *pb.RemoveModuleResponse {
	var mu sync.Mutex // guards resp
	resp := &pb.RemoveModuleResponse{ModuleHash: hash}
	failed := s.askModules(ctx, func(ctx context.Context, m cluster.Member, c pb.ModuleServiceClient) error {
		dropped, err := c.DropModule(ctx, &pb.DropModuleRequest{Fence: l.fence, ModuleHash: hash})
		if err == nil && dropped.GetDropped() {
			mu.Lock()
			defer mu.Unlock()
			resp.NodeNames = append(resp.NodeNames, m.Name)
		}
		return err
	})
	slices.Sort(resp.NodeNames)
	for _, f := range failed {
		e := rpc.FromError(f.err)
		resp.Failures = append(resp.Failures, &pb.RemoveFailure{NodeName: f.node.Name, ErrorCode: string(e.Code), Message: e.Message})
	}
	s.cfg.Log.InfoContext(ctx, "removed a module, as was asked", "module", hash, "peers", resp.NodeNames, "failed", len(failed))
	return resp
}

// referenced refuses to remove a module that instances reference, and says what to do.
func (s *Server) referenced(hash string, use *moduleUse) error {
	who := s.whoReferences(hash)
	if use.live > 0 {
		return rpc.Errorf(rpc.InvalidRequest, "module %s is used by %d live instances: %s; stop them first, after which their records and their module are kept for an hour",
			hash, use.live, who).With("module_hash", hash)
	}
	return rpc.Errorf(rpc.InvalidRequest, "module %s belongs to %d instances that ended: %s; their records are kept for an hour, and it goes by itself an hour after them",
		hash, use.ended, who).With("module_hash", hash)
}

// resolveModule returns the one known hash that a reference stands for.
func resolveModule(ref string, known, silent []string) (string, error) {
	digits := strings.TrimPrefix(ref, hashPrefix)
	if strings.Trim(digits, "0123456789abcdef") != "" || len(digits) > 64 {
		return "", rpc.Errorf(rpc.InvalidRequest, "%q is no hash: want sha256: and 64 lower-case hex digits, or the first few of them", ref)
	}
	var found []string
	if len(digits) >= leastDigits { // a shorter one would make a typing slip remove something
		for _, hash := range known {
			if strings.HasPrefix(hash, hashPrefix+digits) {
				found = append(found, hash)
			}
		}
	}
	switch len(found) {
	case 0:
		e := rpc.Errorf(rpc.ModuleNotFound, "no module has the hash %s; see wasmatrix module ls", cmp.Or(ref, `""`))
		if len(silent) > 0 {
			e = rpc.Errorf(rpc.ModuleNotFound, "no node that answers holds a module with the hash %s, and %s did not answer; see wasmatrix module ls",
				cmp.Or(ref, `""`), strings.Join(silent, ", "))
		}
		return "", e
	case 1:
		return found[0], nil
	}
	return "", rpc.Errorf(rpc.InvalidRequest, "%q stands for %d modules (%s …); give more of it", ref, len(found), strings.Join(found[:2], ", "))
}
