package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// cpuMost is how long the use of the processors may be watched: it costs a little all the while.
	cpuMost = time.Minute
	// debugPiece is how many bytes of a file one message carries.
	debugPiece = 256 << 10
)

// Source is a file that a bug report has of each node.
type Source struct {
	File string
	// Write writes it. What guests were given and wrote is in it only where that is asked for.
	Write func(ctx context.Context, w io.Writer, guestData bool) error
	// GuestData says that there is nothing else in it.
	GuestData bool
}

// CollectDebug implements the RPC of that name.
func (s *Service) CollectDebug(req *pb.CollectDebugRequest, stream grpc.ServerStreamingServer[pb.CollectDebugResponse]) error {
	other, err := s.other(req.GetNode())
	if err != nil {
		return err
	}
	if other != nil {
		return s.relayDebug(req, other.RPCAddr, stream)
	}
	cpuFor := req.GetCpuFor().AsDuration()
	if cpuFor < 0 || cpuFor > cpuMost {
		return rpc.Errorf(rpc.InvalidRequest, "watch the processors for %s: want at most %s", cpuFor, cpuMost)
	}
	if !s.collecting.TryLock() {
		return rpc.Errorf(rpc.ResourceExhausted, "node %s collects for a bug report already; try again when that is done", s.cfg.NodeName)
	}
	defer s.collecting.Unlock()
	s.cfg.Log.InfoContext(stream.Context(), "collecting for a bug report", "duration", cpuFor)
	sources := append(s.ownSources(), s.cfg.Sources...)
	if cpuFor > 0 {
		sources = append(sources, cpuProfile(cpuFor)) // last: the others say how the node is without it
	}
	for _, source := range sources {
		if source.GuestData && !req.GetWithGuestData() {
			continue
		}
		pieces := &pieceWriter{service: s, stream: stream, file: source.File}
		err := source.Write(stream.Context(), pieces, req.GetWithGuestData())
		if pieces.broken != nil {
			return fmt.Errorf("send %s: %w", source.File, pieces.broken)
		}
		if err := pieces.end(err); err != nil {
			return fmt.Errorf("send %s: %w", source.File, err)
		}
	}
	return nil
}

// relayDebug passes on what another node collects.
func (s *Service) relayDebug(req *pb.CollectDebugRequest, addr string, stream grpc.ServerStreamingServer[pb.CollectDebugResponse]) error {
	c, err := s.client(addr)
	if err != nil {
		return err
	}
	from, err := c.CollectDebug(stream.Context(), &pb.CollectDebugRequest{CpuFor: req.GetCpuFor(), WithGuestData: req.GetWithGuestData()})
	if err != nil {
		return err
	}
	for {
		resp, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// pieceWriter sends what is written to a file, piece by piece.
type pieceWriter struct {
	service *Service
	stream  grpc.ServerStreamingServer[pb.CollectDebugResponse]
	file    string
	waiting []byte
	broken  error // why the stream can't go on
}

// Write implements io.Writer.
func (p *pieceWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0 && p.broken == nil; {
		n := min(len(rest), debugPiece-len(p.waiting))
		p.waiting, rest = append(p.waiting, rest[:n]...), rest[n:]
		if len(p.waiting) == debugPiece {
			p.broken = p.send("")
		}
	}
	return len(b), p.broken
}

// end sends what is left, and what went wrong.
func (p *pieceWriter) end(err error) error {
	if err != nil {
		return p.send(err.Error())
	}
	return p.send("")
}

func (p *pieceWriter) send(trouble string) error {
	err := p.stream.Send(&pb.CollectDebugResponse{
		NodeId: p.service.cfg.NodeID, NodeName: p.service.cfg.NodeName, File: p.file, Data: p.waiting, Error: trouble,
	})
	p.waiting = nil // gRPC may look at what was sent later
	return err
}
