package controlplane

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/vitals"
)

// board is what this voter knows of how all nodes fare.
type board struct {
	mu sync.Mutex // guards kept

	kept *vitals.Board
}

func newBoard() *board { return &board{kept: vitals.NewBoard(time.Now())} }

// hear takes what a node's report says of how it fares.
func (b *board) hear(nodeID, bootID string, load *pb.NodeLoad) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept.Hear(nodeID, bootID, load, time.Now())
}

// node returns how a node fares; nil where that is not known.
func (b *board) node(nodeID string) *pb.NodeVitals {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.Node(nodeID, time.Now())
}

// provider returns what guests asked of a provider in the last minute.
func (b *board) provider(id string) *pb.CallRates {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.Provider(id, time.Now())
}

// keepBoard ends a bin of the board every few seconds, until ctx ends. A node that is no voter hears nothing, and has nothing to
// keep.
func (s *Server) keepBoard(ctx context.Context) {
	tick := time.NewTicker(vitals.Period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		voter, instances := slices.Contains(s.cluster.Voters(), s.cfg.NodeID), s.view.counts()
		s.board.mu.Lock()
		if voter {
			s.board.kept.Tick(time.Now(), instances)
		} else {
			s.board.kept.Restart(time.Now())
		}
		s.board.mu.Unlock()
		s.forgetUsages(voter)
	}
}

// GetHistory returns how the cluster fared lately.
func (s *Server) GetHistory(context.Context, *pb.GetHistoryRequest) (*pb.GetHistoryResponse, error) {
	if _, err := s.leading(); err != nil {
		return nil, err
	}
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	return s.board.kept.History(time.Now()), nil
}
