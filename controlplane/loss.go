package controlplane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// lossLook is how often nodes that gossip holds for dead are looked at.
	lossLook = 250 * time.Millisecond
	// callTimeout is how long a node that gossip holds for dead may take to answer a call, and a voter
	// to say what it sees of it.
	callTimeout = time.Second
	// vanishWindow is within which time deaths count as one: see tooManyVanished.
	vanishWindow = 10 * time.Second
)

// watchLosses declares nodes lost, as long as this node leads: gossip says dead, this node and most
// voters have no stream from it and can't reach it, and that still holds after the grace.
func (s *Server) watchLosses(l *lead) {
	if l.waitRecovered(l.ctx) != nil {
		return
	}
	var (
		suspects = map[string]*suspect{} // by node id
		warned   = map[string]struct{}{} // ids of nodes that too many others vanished with
	)
	for {
		changed := s.cluster.Changed()
		s.follow(suspects, time.Now())
		for id, sus := range suspects {
			switch s.judge(l, sus, suspects) {
			case lost:
				if s.declareLost(l, sus.member) {
					delete(suspects, id)
				}
			case tooMany:
				if _, told := warned[id]; !told {
					warned[id] = struct{}{}
					s.cfg.Log.Warn("a node is gone together with most others: this part may be the one that is cut off, so nothing is started elsewhere until some are back", "peer", sus.member.Name)
				}
			case unsure:
			}
		}
		var again <-chan time.Time
		if len(suspects) > 0 {
			again = time.After(lossLook)
		} else {
			clear(warned)
		}
		select {
		case <-changed:
		case <-again:
		case <-l.ctx.Done():
			return
		}
	}
}

// suspect is a node that gossip holds for dead and that was not declared lost yet.
type suspect struct {
	member    cluster.Member
	since     time.Time // when this leader saw it dead first
	confirmed time.Time // since when most voters miss it, too; zero if they do not
}

// follow makes the suspects be those that gossip holds for dead now.
func (s *Server) follow(suspects map[string]*suspect, now time.Time) {
	dead := map[string]struct{}{}
	for _, m := range s.cluster.Members() {
		n, registered := s.fsm.Node(m.NodeID)
		if !registered || m.State != "dead" || m.NodeID == s.cfg.NodeID {
			continue
		}
		if n.GetState() == pb.NodeState_NODE_STATE_LEFT || n.GetState() == pb.NodeState_NODE_STATE_LOST {
			continue
		}
		dead[m.NodeID] = struct{}{}
		if suspects[m.NodeID] == nil {
			suspects[m.NodeID] = &suspect{member: m, since: now}
		}
	}
	for id := range suspects {
		if _, still := dead[id]; !still {
			delete(suspects, id)
		}
	}
}

type verdict int

const (
	unsure verdict = iota
	tooMany
	lost
)

// judge decides about one suspect now.
func (s *Server) judge(l *lead, sus *suspect, all map[string]*suspect) verdict {
	missed, err := s.missed(l, sus.member.NodeID)
	if err != nil {
		s.cfg.Log.Warn("a node is gone, but a voter that knows more of it does not tell; asking again", "peer", sus.member.Name, "err", err)
	}
	if !missed || err != nil {
		sus.confirmed = time.Time{}
		return unsure
	}
	now := time.Now()
	if sus.confirmed.IsZero() {
		sus.confirmed = now
	}
	switch {
	case now.Sub(sus.confirmed) < time.Duration(s.lossGrace.Load()):
		return unsure
	case s.tooManyVanished(sus, all):
		return tooMany
	}
	return lost
}

// tooManyVanished says whether more than half of the other nodes vanished together: then it is likelier
// that this part of the cluster was cut off than that they all died. Those that the operator gave up died.
func (s *Server) tooManyVanished(sus *suspect, all map[string]*suspect) bool {
	if n, ok := s.fsm.Node(sus.member.NodeID); ok && n.GetGivenUp() {
		return false
	}
	others, vanished := 0, 0
	for _, m := range s.cluster.Members() {
		if m.NodeID == s.cfg.NodeID || m.State == "left" {
			continue
		}
		if n, ok := s.fsm.Node(m.NodeID); ok && (n.GetState() == pb.NodeState_NODE_STATE_LOST || n.GetGivenUp()) {
			continue
		}
		others++
		if o := all[m.NodeID]; o != nil && o.since.Sub(sus.since).Abs() <= vanishWindow {
			vanished++
		}
	}
	return 2*vanished > others
}

// missed says whether this node and most of the voters, itself among them, miss a node: no report
// stream from it is open, and it does not answer. What those voters know of it this node knows then, too: what was
// acknowledged is known to most voters (agent/witness.go), so to one of those at least.
func (s *Server) missed(l *lead, nodeID string) (bool, error) {
	if !missing(s.checkNode(l.ctx, nodeID)) {
		return false, nil
	}
	voters := s.cluster.Voters()
	votes := 0
	var (
		g  errgroup.Group
		mu sync.Mutex // guards votes
	)
	for _, id := range voters {
		if id == s.cfg.NodeID {
			mu.Lock()
			votes++
			mu.Unlock()
			continue
		}
		m, ok := s.member(id)
		if !ok || !reachable(m) {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(l.ctx, 2*callTimeout) // it makes a call of its own
			defer cancel()
			seen, err := s.askAbout(ctx, m, nodeID)
			if err != nil {
				s.cfg.Log.Debug("a voter did not say what it sees of a node", "peer", m.Name, "about", nodeID, "err", err)
				return nil // it has no vote then
			}
			if !missing(seen) {
				return nil
			}
			if s.isNews(nodeID, position{seen.GetBootId(), seen.GetSeq()}, seen.GetSilentFor().AsDuration()) {
				if _, err := s.pullCopies(ctx, m, []string{nodeID}); err != nil {
					return fmt.Errorf("ask node %s: %w", m.Name, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			votes++
			return nil
		})
	}
	err := g.Wait()
	return votes >= len(voters)/2+1, err
}

func (s *Server) askAbout(ctx context.Context, voter cluster.Member, nodeID string) (*pb.CheckNodeResponse, error) {
	conn, err := s.peers.Conn(voter.RPCAddr)
	if err != nil {
		return nil, err
	}
	return pb.NewControlPlaneServiceClient(conn).CheckNode(ctx, &pb.CheckNodeRequest{NodeId: nodeID})
}

func missing(seen *pb.CheckNodeResponse) bool {
	return !seen.GetAlive() && !seen.GetReporting() && !seen.GetAnswered()
}

// CheckNode says what this node sees of another.
func (s *Server) CheckNode(ctx context.Context, req *pb.CheckNodeRequest) (*pb.CheckNodeResponse, error) {
	if _, ok := s.member(req.GetNodeId()); !ok {
		return nil, rpc.Errorf(rpc.NodeNotFound, "node %s does not know a node %q", s.cfg.NodeName, req.GetNodeId())
	}
	return s.checkNode(ctx, req.GetNodeId()), nil
}

func (s *Server) checkNode(ctx context.Context, nodeID string) *pb.CheckNodeResponse {
	m, _ := s.member(nodeID)
	at := s.view.position(nodeID)
	seen := &pb.CheckNodeResponse{Alive: reachable(m), Reporting: s.reporters.reporting(nodeID), BootId: at.BootID, Seq: at.Seq}
	if silent, ever := s.reporters.silence(nodeID); ever {
		seen.SilentFor = durationpb.New(silent)
	}
	if seen.GetAlive() || seen.GetReporting() {
		return seen // no need to call
	}
	seen.Answered = s.answers(ctx, m)
	return seen
}

// answers calls a node's agent. Any answer of its own counts, an error too.
func (s *Server) answers(ctx context.Context, m cluster.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	agent, err := s.agent(m)
	if err != nil {
		return false
	}
	_, err = agent.QueryInstance(ctx, &pb.NodeAgentServiceQueryInstanceRequest{})
	code := rpc.CodeOf(err)
	return err == nil || code == rpc.InstanceNotFound || code == rpc.InvalidRequest
}

// declareLost takes a node's instances out of its hands, once the log says so. It says whether that is done.
func (s *Server) declareLost(l *lead, m cluster.Member) bool {
	n, ok := s.fsm.Node(m.NodeID)
	if !ok {
		return true
	}
	if err := s.cluster.VerifyLeader(l.ctx); err != nil {
		s.cfg.Log.Warn("a node is lost, but this one does not lead for sure; looking again", "peer", m.Name, "err", err)
		return false
	}
	ran := slices.DeleteFunc(s.view.onNode(m.NodeID), func(i *pb.Instance) bool { return !fact.Live(i.GetStatus()) })
	known := s.view.position(m.NodeID)
	cmd := &pb.Command{Op: &pb.Command_RaiseNodeEpoch{RaiseNodeEpoch: &pb.RaiseNodeEpoch{
		NodeId: m.NodeID, FromEpoch: n.GetEpoch(), BootId: known.BootID, Seq: known.Seq,
	}}}
	if err := s.cluster.Apply(l.ctx, cmd); err != nil {
		s.cfg.Log.Warn("a node is lost, but that could not be written down; trying again", "peer", m.Name, "err", err)
		return false
	}
	s.view.setEpochs(s.fsm.Nodes(), s.reporters.reporting) // or followEpochs has, on hearing of it
	s.cfg.Log.Warn("a node was lost: what ran there is started elsewhere", "peer", m.Name, "peer_id", m.NodeID, "instances", len(ran))
	s.metrics.losses.Inc()
	s.clusterEvent(l.ctx, "node.lost", m.NodeID, m.Name, nil)
	for _, i := range ran {
		if i.GetSpec().GetRestartPolicy().GetPolicyType() == pb.PolicyType_POLICY_TYPE_NEVER {
			s.local.RecordEvent(&pb.Event{
				Type: "instance.lost", NodeId: m.NodeID, InstanceId: i.GetInstanceId(), Name: i.GetSpec().GetName(),
				Details: map[string]string{"reason": "its node " + m.Name + " was lost, and its restart policy is never"},
			})
		}
	}
	return true
}

// followEpochs takes what lost nodes ran out of their hands, on every node that has copies.
func (s *Server) followEpochs(ctx context.Context) {
	for {
		changed := s.fsm.Changed()
		s.view.setEpochs(s.fsm.Nodes(), s.reporters.reporting)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
