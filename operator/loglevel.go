package operator

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/logging"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// ChangeLogLevel implements the RPC of that name.
func (s *Service) ChangeLogLevel(ctx context.Context, req *pb.ChangeLogLevelRequest) (*pb.ChangeLogLevelResponse, error) {
	if other, err := s.other(req.GetNode()); err != nil {
		return nil, err
	} else if other != nil {
		c, err := s.client(other.RPCAddr)
		if err != nil {
			return nil, err
		}
		return c.ChangeLogLevel(ctx, &pb.ChangeLogLevelRequest{Level: req.GetLevel(), ValidFor: req.GetValidFor()})
	}
	levels := s.cfg.Logging.Level
	d := req.GetValidFor().AsDuration()
	switch {
	case req.GetLevel() == "" && req.GetValidFor() != nil:
		return nil, rpc.Errorf(rpc.InvalidRequest, "a time and no level: say which level holds for %s", d)
	case req.GetValidFor() != nil && d <= 0:
		return nil, rpc.Errorf(rpc.InvalidRequest, "a level for %s: want more than nothing", d)
	case req.GetLevel() != "":
		level, err := logging.ParseLevel(req.GetLevel())
		if err != nil {
			return nil, rpc.Errorf(rpc.InvalidRequest, "log level %w", err)
		}
		was := levels.Level()
		if d > 0 {
			levels.SetFor(level, d)
		} else {
			levels.Set(level)
		}
		s.cfg.Log.WarnContext(ctx, "the log level was changed by hand", "value", levelName(level), "was", levelName(was), "duration", d)
	}
	resp := &pb.ChangeLogLevelResponse{NodeId: s.cfg.NodeID, NodeName: s.cfg.NodeName, Level: levelName(levels.Level())}
	if until, then := levels.Until(); !until.IsZero() {
		resp.Until, resp.ThenLevel = timestamppb.New(until), levelName(then)
	}
	return resp, nil
}

// other returns the node that a name or id stands for, and nil where that is this one.
func (s *Service) other(ref string) (*cluster.Member, error) {
	if ref == "" || ref == s.cfg.NodeID || ref == s.cfg.NodeName {
		return nil, nil
	}
	m, err := s.resolve(ref)
	switch {
	case err != nil:
		return nil, err
	case m.NodeID == s.cfg.NodeID:
		return nil, nil
	case m.RPCAddr == "":
		return nil, rpc.Errorf(rpc.CommunicationFailure, "node %s: nobody knows its address", ref)
	}
	return &m, nil
}

func levelName(level interface{ String() string }) string { return strings.ToLower(level.String()) }
