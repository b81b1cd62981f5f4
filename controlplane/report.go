package controlplane

import (
	"errors"
	"fmt"
	"io"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// ReportStatus takes an agent's reports into the view. Every voter gets them, so that each has a
// warm copy. The first message is a hello; the answer tells the agent how far its story is known,
// and it goes on from there, or from nothing if its life is a new one. After a gap the stream ends
// and the agent's next hello mends it.
func (s *Server) ReportStatus(stream pb.ControlPlaneService_ReportStatusServer) error {
	hello, err := stream.Recv()
	if err != nil {
		return endOfReport(err)
	}
	nodeID, bootID := hello.GetNodeId(), hello.GetBootId()
	if nodeID == "" || bootID == "" {
		return rpc.Errorf(rpc.InvalidRequest, "a report begins with a node id and a boot id")
	}
	life := s.reporters.begin(nodeID)
	defer s.reporters.end(nodeID)
	s.board.hear(nodeID, bootID, hello.GetLoad())
	known := s.view.position(nodeID)
	if err := stream.Send(&pb.ReportStatusResponse{BootId: known.BootID, Seq: known.Seq}); err != nil {
		return fmt.Errorf("answer the hello of node %s: %w", nodeID, err)
	}

	var full []*pb.Instance // a full report that is still coming
	var collecting bool
	for {
		m, err := stream.Recv()
		if err != nil {
			return endOfReport(err)
		}
		if m.GetNodeId() != nodeID || m.GetBootId() != bootID {
			return rpc.Errorf(rpc.InvalidRequest, "the report of node %s turned into one of node %s", nodeID, m.GetNodeId())
		}
		if !s.reporters.hear(nodeID, life) {
			return rpc.Errorf(rpc.CommunicationFailure, "node %s reports on a newer stream", nodeID)
		}
		s.board.hear(nodeID, bootID, m.GetLoad())
		if m.GetFull() {
			full, collecting = nil, true
		}
		switch {
		case collecting:
			full = append(full, m.GetInstances()...)
			if m.GetSeq() == 0 { // more to come
				continue
			}
			s.view.replace(nodeID, position{bootID, m.GetSeq()}, full)
			full, collecting = nil, false
		case !s.view.advance(nodeID, m.GetAfterSeq(), position{bootID, m.GetSeq()}, m.GetInstances(), m.GetRemovedInstanceIds()):
			s.metrics.gaps.Inc()
			return rpc.Errorf(rpc.CommunicationFailure, "the report of node %s has a gap after %d; say hello again", nodeID, s.view.position(nodeID).Seq)
		}
		s.usages.hear(m.GetUsages(), time.Now())
		// After the records: who hears of a crash, and asks, is told of the crash. What a gap keeps out is told again.
		s.events.Add(m.GetEvents())
		at := s.view.position(nodeID)
		if err := stream.Send(&pb.ReportStatusResponse{BootId: at.BootID, Seq: at.Seq}); err != nil {
			return fmt.Errorf("acknowledge a report of node %s: %w", nodeID, err)
		}
	}
}

func endOfReport(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
