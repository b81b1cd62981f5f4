package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// votingCluster has voters, and is in a term.
type votingCluster struct {
	simulatedCluster
	voters  []string
	term    *atomic.Uint64
	deposed bool // as Raft says it
}

func (c votingCluster) Voters() []string { return c.voters }
func (c votingCluster) Term() uint64     { return c.term.Load() }

func (c votingCluster) VerifyLeader(context.Context) error {
	if c.deposed {
		return errors.New("node is not the leader")
	}
	return nil
}

// older stands for a voter that can't be asked for its term: it is of an earlier version.
const older = 0

func TestContactIsGrantedOnlyWhileMostVotersAreInTheLeadersTerm(t *testing.T) {
	for _, test := range []struct {
		terms   [3]uint64 // of me, n1 and n2
		deposed bool
		granted bool
	}{
		{terms: [3]uint64{1, 1, 1}, granted: true},
		{terms: [3]uint64{1, 1, 1}, deposed: true, granted: true}, // Raft is not asked
		{terms: [3]uint64{1, 2, 1}, granted: true},                // a candidate that nobody else has voted for
		{terms: [3]uint64{1, 2, 2}},                               // another may lead, and this node has not heard
		{terms: [3]uint64{2, 1, 2}},                               // nor does a vote of its own for another count
		{terms: [3]uint64{2, 1, 1}, granted: true},                // which n1 and n2 have not voted for
		{terms: [3]uint64{1, older, older}, granted: true},
		{terms: [3]uint64{1, older, older}, deposed: true},
		{terms: [3]uint64{1, older, 2}, granted: true},
		{terms: [3]uint64{2, older, 2}}, // Raft can't say otherwise
	} {
		s, _, c := leads(t)
		s.peers = newPeers(t)
		voters := []string{"me", "n1", "n2"}
		for n, in := range test.terms {
			term := &atomic.Uint64{}
			term.Store(in)
			if n == 0 {
				s.cluster = votingCluster{c, voters, term, test.deposed}
				continue
			}
			g := rpc.NewServer(rpc.ServerConfig{})
			if in != older {
				pb.RegisterControlPlaneServiceServer(g, New(Config{NodeID: voters[n], Log: slog.New(slog.DiscardHandler)}, votingCluster{c, nil, term, false}, s.fsm, s.peers, discardEvents{}))
			}
			c.members[n].RPCAddr = dialServed(t, g).Target()[len("passthrough:///"):]
		}
		resp, err := s.RenewContact(t.Context(), &pb.RenewContactRequest{NodeId: "n3"})
		if granted := resp.GetValidFor().AsDuration() == contactFor; granted != test.granted || (!granted && rpc.CodeOf(err) != rpc.NoLeader) {
			t.Errorf("in terms %v, deposed %t, it is granted %t: %v", test.terms, test.deposed, granted, err)
		}
	}
}
