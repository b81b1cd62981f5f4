package operator

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// snapshotVersion is that of the pb.Snapshot that this binary writes and reads.
const snapshotVersion = 1

// snapshot is what this node knows now. Its index is read first: the metadata may be newer, never older.
func (s *Service) snapshot() *pb.Snapshot {
	st := s.cluster.RaftState()
	m := s.fsm.Metadata()
	return &pb.Snapshot{
		Version: snapshotVersion, ClusterId: m.GetClusterId(), Index: st.AppliedIndex, Term: st.Term,
		TakenAt: timestamppb.Now(), TakenBy: s.cfg.NodeName, BinaryVersion: s.cfg.Version, Metadata: m,
	}
}

// RestoreSnapshot implements the RPC of that name.
//
// It is an entry of the log like any other, not a snapshot that Raft is given from outside: so what is known
// at that very moment is merged in alike on every voter, and a node that is declared lost meanwhile stays so.
func (s *Service) RestoreSnapshot(ctx context.Context, req *pb.RestoreSnapshotRequest) (*pb.RestoreSnapshotResponse, error) {
	if err := s.leading(); err != nil {
		return nil, err
	}
	saved := proto.CloneOf(req.GetSnapshot().GetMetadata())
	ours := s.cluster.ClusterID()
	switch theirs := saved.GetClusterId(); {
	case saved == nil || req.GetSnapshot().GetVersion() != snapshotVersion:
		return nil, rpc.Errorf(rpc.InvalidRequest, "the snapshot is of version %d, and node %s (wasmatrix %s) reads version %d: it takes a binary of the version that wrote it, which was %s",
			req.GetSnapshot().GetVersion(), s.cfg.NodeName, s.cfg.Version, snapshotVersion, req.GetSnapshot().GetBinaryVersion())
	case theirs != ours && !req.GetForce():
		return nil, rpc.Errorf(rpc.InvalidRequest, "the snapshot is of cluster %s, and this is cluster %s: --force brings its nodes, providers and settings into this one", theirs, ours)
	}
	saved.ClusterId = ours
	if err := s.cluster.Barrier(ctx); err != nil {
		return nil, err
	}
	merged, err := raftfsm.Merge(s.fsm.Metadata(), saved)
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "the snapshot can't be restored: %w", err)
	}
	restore := &pb.Command{Op: &pb.Command_RestoreMetadata{RestoreMetadata: &pb.RestoreMetadata{Metadata: saved}}}
	if err := s.cluster.Apply(ctx, restore); err != nil {
		return nil, fmt.Errorf("restore the snapshot: %w", err)
	}
	s.cfg.Log.WarnContext(ctx, "restored a snapshot, as was asked", "taken_by", req.GetSnapshot().GetTakenBy(), "taken_at", req.GetSnapshot().GetTakenAt().AsTime(),
		"index", req.GetSnapshot().GetIndex(), "added", merged.Added, "raised", merged.Raised)
	return &pb.RestoreSnapshotResponse{
		Added: merged.Added, Raised: merged.Raised,
		Providers: uint32(len(saved.GetProviders())), Settings: uint32(len(saved.GetSettings())),
	}, nil
}
