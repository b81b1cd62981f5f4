package controlplane

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// A new leader may have been away, or a voter for a short time only, when a node died whose agent
// nobody can ask any more. So it also asks the other voters for their copies of such nodes.

// copiesTimeout bounds how long a voter may take to tell what it knows: recovery waits for it.
const copiesTimeout = time.Second

// collectCopies asks all other voters that are there of the nodes that have not answered, and closes the
// channel when they have told, or the time for it is over.
func (s *Server) collectCopies(l *lead) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(l.ctx, copiesTimeout)
		defer cancel()
		silent := s.silentNodes(l)
		var g errgroup.Group
		for _, id := range s.cluster.Voters() {
			m, ok := s.member(id)
			if id == s.cfg.NodeID || !ok || !reachable(m) {
				continue
			}
			g.Go(func() error {
				if _, err := s.pullCopies(ctx, m, silent); err != nil {
					s.cfg.Log.Debug("a voter did not tell what it knows of nodes that are away", "peer", m.Name, "err", err)
				}
				return nil
			})
		}
		_ = g.Wait() // without a voter's copies this node's own have to do
	}()
	return done
}

// silentNodes returns the ids of nodes that are registered and have not answered this leader.
func (s *Server) silentNodes(l *lead) []string {
	var silent []string
	for _, n := range s.fsm.Nodes() {
		if n.GetState() != pb.NodeState_NODE_STATE_LEFT && !l.hasAnswered(n.GetNodeId()) {
			silent = append(silent, n.GetNodeId())
		}
	}
	return silent
}

// pullCopies takes over what a voter knows better of nodes, and of instances that no node has. The latter it returns too.
func (s *Server) pullCopies(ctx context.Context, voter cluster.Member, of []string) (unowned unownedCopy, err error) {
	conn, err := s.peers.Conn(voter.RPCAddr)
	if err != nil {
		return unowned, err
	}
	stream, err := pb.NewControlPlaneServiceClient(conn).ListCopies(ctx, &pb.ListCopiesRequest{NodeIds: of})
	if err != nil {
		return unowned, err
	}
	var all []*pb.Instance
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return unowned, nil
		}
		if err != nil {
			return unowned, err
		}
		all = append(all, piece.GetInstances()...)
		s.usages.hear(piece.GetUsages(), time.Now())
		if piece.GetMore() {
			continue
		}
		if id := piece.GetNodeId(); id == "" {
			s.view.adopt(all)
			unowned = unownedCopy{all, piece.GetSettled()}
		} else if slices.Contains(of, id) {
			s.takeCopy(id, position{piece.GetBootId(), piece.GetSeq()}, piece.GetSilentFor().AsDuration(), all)
		}
		all = nil
	}
}

// unownedCopy is what a voter knows of instances that no node has.
type unownedCopy struct {
	instances []*pb.Instance
	settled   bool // it leads, and there are no others
}

// takeCopy takes a voter's copy of a node over, if it is newer than this node's.
func (s *Server) takeCopy(nodeID string, at position, silentFor time.Duration, all []*pb.Instance) {
	s.copying.Lock()
	defer s.copying.Unlock()
	if s.isNews(nodeID, at, silentFor) {
		s.view.replace(nodeID, at, s.view.trusted(nodeID, at, all))
		s.reporters.copied(nodeID, silentFor)
	}
}

// isNews says whether a voter's copy of a node is newer than this node's. Of two lives of an agent the
// one that was heard of last is the later.
func (s *Server) isNews(nodeID string, copied position, silentFor time.Duration) bool {
	ours := s.view.position(nodeID)
	if copied.BootID == "" || ours.BootID == copied.BootID {
		return copied.BootID != "" && copied.Seq > ours.Seq
	}
	silent, ever := s.reporters.silence(nodeID)
	return !ever || silentFor < silent
}

// ListCopies tells what this node knows of nodes that can't be asked themselves.
func (s *Server) ListCopies(req *pb.ListCopiesRequest, stream pb.ControlPlaneService_ListCopiesServer) error {
	for _, id := range req.GetNodeIds() {
		at, all := s.view.copyOf(id)
		silent, ever := s.reporters.silence(id)
		if at.BootID == "" || !ever {
			continue
		}
		head := &pb.ListCopiesResponse{NodeId: id, BootId: at.BootID, Seq: at.Seq, SilentFor: durationpb.New(silent)}
		if err := s.sendCopies(stream, head, all); err != nil {
			return err
		}
	}
	l, err := s.leading()
	settled := err == nil && !l.recovering()
	return s.sendCopies(stream, &pb.ListCopiesResponse{Settled: settled}, s.view.unowned())
}

func (s *Server) sendCopies(stream pb.ControlPlaneService_ListCopiesServer, head *pb.ListCopiesResponse, all []*pb.Instance) error {
	for first := true; first || len(all) > 0; first = false {
		n := min(pageSize, len(all))
		piece := proto.CloneOf(head)
		piece.Instances, piece.More = all[:n], n < len(all)
		piece.Usages = s.usages.all(piece.GetInstances())
		if err := stream.Send(piece); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// copyOf returns what is known of a node, as its agent told it: with what runs elsewhere with better right, or is
// being moved. Whoever takes the copy over hears from the node only what comes after it.
func (v *view) copyOf(nodeID string) (position, []*pb.Instance) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := slices.DeleteFunc(v.index.OnNode(nodeID), provisional)
	for _, hidden := range []map[string]*pb.Instance{v.doubles, v.behind} {
		for _, i := range hidden {
			if i.GetNodeId() == nodeID && !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
	}
	return v.nodes[nodeID], all
}

// unowned returns the instances that no node has, those included that are being started elsewhere just now: should
// this leader go, nobody may have heard of that.
func (v *view) unowned() []*pb.Instance {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := v.index.OnNode("")
	for id := range v.orphans {
		if i := v.index.Get(id); i != nil && provisional(i) && !orphan(i) {
			all = append(all, waitingFor(i, "its start elsewhere was not answered"))
		}
	}
	return all
}

// adopt takes over instances that no node has.
func (v *view) adopt(all []*pb.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range all {
		old := v.index.Get(i.GetInstanceId())
		if orphan(i) && v.index.Put(i) && fact.Live(i.GetStatus()) {
			if old != nil && !provisional(old) && fact.Live(old.GetStatus()) {
				v.behind[i.GetInstanceId()] = old // an earlier copy, to be ended once it runs elsewhere
			}
			v.orphans[i.GetInstanceId()] = struct{}{}
			v.wakeLocked()
		}
	}
}
