package controlplane

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// inItsTerm says whether most voters are in this leader's term, each at some time between the call and the return: who
// leads later has a vote that is given after. Raft's own word (VerifyLeader) is not enough for that: to it, a heartbeat
// counts that was answered before, if only the answer is read after. In a process that was frozen that may be long ago.
// It has to do where too few voters can be asked, in the middle of an upgrade.
func (s *Server) inItsTerm(ctx context.Context, l *lead) bool {
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	voters := s.cluster.Voters()
	var (
		g            errgroup.Group
		mu           sync.Mutex // guards votes and older
		votes, older int
	)
	for _, id := range voters {
		g.Go(func() error {
			term, err := s.termOf(asking, id)
			if err != nil && asking.Err() == nil {
				s.cfg.Log.DebugContext(ctx, "a voter did not say in which term it is", "peer_id", id, "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case status.Code(err) == codes.Unimplemented: // it is of a version that can't be asked
				older++
			case err == nil && term == l.fence.GetTerm():
				votes++
			}
			if 2*votes > len(voters) {
				cancel() // the others need not answer
			}
			return nil
		})
	}
	_ = g.Wait() // they return nothing
	if 2*votes > len(voters) {
		return true
	}
	return 2*(votes+older) > len(voters) && s.cluster.VerifyLeader(ctx) == nil
}

// termOf asks a voter in which term it is.
func (s *Server) termOf(ctx context.Context, voterID string) (uint64, error) {
	if voterID == s.cfg.NodeID {
		return s.cluster.Term(), nil
	}
	m, ok := s.member(voterID)
	if !ok {
		return 0, rpc.Errorf(rpc.NodeNotFound, "node %s does not know a node %q", s.cfg.NodeName, voterID)
	}
	conn, err := s.peers.Conn(m.RPCAddr)
	if err != nil {
		return 0, err
	}
	resp, err := pb.NewControlPlaneServiceClient(conn).CheckTerm(ctx, &pb.CheckTermRequest{})
	return resp.GetTerm(), err
}

// CheckTerm says in which term this node is.
func (s *Server) CheckTerm(context.Context, *pb.CheckTermRequest) (*pb.CheckTermResponse, error) {
	return &pb.CheckTermResponse{Term: s.cluster.Term()}, nil
}
