package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/logging"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// askTimeout is how long one node may take to say what it knows.
const askTimeout = 2 * time.Second

// Config is what the service is told about its node.
type Config struct {
	NodeID   string
	NodeName string
	Version  string // of the binary
	DataDir  string
	Log      *slog.Logger
	Logging  *logging.Log // what Log leads to
	// What the other parts of the node add to a bug report.
	Sources []Source
}

// Service serves OperatorService on one node.
type Service struct {
	pb.UnimplementedOperatorServiceServer

	cfg     Config
	cluster *cluster.Cluster
	fsm     *raftfsm.FSM
	peers   *rpc.Peers

	recovering sync.Mutex // held by the one recovery under way
	collecting sync.Mutex // held by the one that collects for a bug report
}

// New returns a service that does nothing by itself.
func New(cfg Config, c *cluster.Cluster, fsm *raftfsm.FSM, peers *rpc.Peers) *Service {
	return &Service{cfg: cfg, cluster: c, fsm: fsm, peers: peers}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(g *grpc.Server) { pb.RegisterOperatorServiceServer(g, s) }

// state is this node's own part.
func (s *Service) state() *pb.RaftState {
	st := s.cluster.RaftState()
	return &pb.RaftState{
		NodeId: s.cfg.NodeID, NodeName: s.cfg.NodeName, Leads: st.Leads,
		QuorumGeneration: st.Quorum.Generation, QuorumFounder: st.Quorum.Founder, Term: st.Term,
		LastIndex: st.LastIndex, LastTerm: st.LastTerm, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		VoterIds: st.VoterIDs,
	}
}

// client returns a client of another node's service.
func (s *Service) client(addr string) (pb.OperatorServiceClient, error) {
	conn, err := s.peers.Conn(addr)
	if err != nil {
		return nil, err
	}
	return pb.NewOperatorServiceClient(conn), nil
}

// ListRaft implements the RPC of that name.
func (s *Service) ListRaft(ctx context.Context, req *pb.ListRaftRequest) (*pb.ListRaftResponse, error) {
	if req.GetLocal() {
		return &pb.ListRaftResponse{State: s.state()}, nil
	}
	states, _ := s.askAll(ctx, s.cluster.Members())
	resp := &pb.ListRaftResponse{State: s.state()}
	for _, st := range states {
		if st.GetLeads() && st.GetTerm() >= resp.GetState().GetTerm() {
			resp.State = st
		}
	}
	members := s.byID()
	for _, id := range resp.GetState().GetVoterIds() {
		m := members[id]
		if m.Name == "" {
			n, _ := s.fsm.Node(id) // gossip has not seen it since this process began
			m.Name, m.RPCAddr = n.GetName(), n.GetRpcAddr()
		}
		resp.Servers = append(resp.Servers, &pb.RaftServer{
			NodeId: id, Name: m.Name, RpcAddr: m.RPCAddr, State: m.State, Votes: true, Raft: states[id],
			Leads: resp.GetState().GetLeads() && resp.GetState().GetNodeId() == id,
		})
	}
	slices.SortFunc(resp.GetServers(), func(a, b *pb.RaftServer) int { return strings.Compare(a.GetName(), b.GetName()) })
	return resp, nil
}

// askAll asks those members that are alive, this node included, for their part in the quorum. It returns
// what they said, by node id, and the names of those that said nothing, with the reason.
func (s *Service) askAll(ctx context.Context, members []cluster.Member) (map[string]*pb.RaftState, map[string]error) {
	var (
		mu     sync.Mutex // guards both maps
		wg     sync.WaitGroup
		states = map[string]*pb.RaftState{s.cfg.NodeID: s.state()}
		silent = map[string]error{}
	)
	for _, m := range members {
		if m.Self || m.State != "alive" {
			continue
		}
		wg.Go(func() {
			st, err := s.ask(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent[m.Name] = err
			} else {
				states[m.NodeID] = st
			}
		})
	}
	wg.Wait()
	return states, silent
}

func (s *Service) ask(ctx context.Context, m cluster.Member) (*pb.RaftState, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := s.client(m.RPCAddr)
	if err != nil {
		return nil, err
	}
	resp, err := c.ListRaft(ctx, &pb.ListRaftRequest{Local: true})
	if err != nil {
		return nil, rpc.FromError(err)
	}
	return resp.GetState(), nil
}

func (s *Service) byID() map[string]cluster.Member {
	all := map[string]cluster.Member{}
	for _, m := range s.cluster.Members() {
		all[m.NodeID] = m
	}
	return all
}

// leading refuses what only a leader does where this node is none.
func (s *Service) leading() error {
	if s.cluster.Leadership().Self {
		return nil
	}
	return rpc.Errorf(rpc.NoLeader, "node %s does not lead the cluster now; try again", s.cfg.NodeName)
}

// resolve returns the node that a name or id stands for: among the voters, or else anywhere.
func (s *Service) resolve(ref string) (cluster.Member, error) {
	members := s.byID()
	for _, n := range s.fsm.Nodes() {
		if _, seen := members[n.GetNodeId()]; !seen {
			members[n.GetNodeId()] = cluster.Member{NodeID: n.GetNodeId(), Name: n.GetName(), RPCAddr: n.GetRpcAddr()}
		}
	}
	voters := s.cluster.Voters()
	for _, id := range voters {
		if m := members[id]; id == ref || m.Name == ref {
			m.NodeID, m.Voter = id, true
			return m, nil
		}
	}
	for id, m := range members {
		if id == ref || m.Name == ref {
			m.Voter = false
			return m, nil
		}
	}
	return cluster.Member{}, rpc.Errorf(rpc.NodeNotFound, "no node has the name or id %q; see wasmatrix operator raft ls", ref)
}

// RemoveVoter implements the RPC of that name.
func (s *Service) RemoveVoter(ctx context.Context, req *pb.RemoveVoterRequest) (*pb.RemoveVoterResponse, error) {
	if err := s.leading(); err != nil {
		return nil, err
	}
	m, err := s.resolve(req.GetNode())
	if err != nil {
		return nil, err
	}
	voters, members := s.cluster.Voters(), s.byID()
	live := 0
	for _, id := range voters {
		if id != m.NodeID && members[id].State == "alive" {
			live++
		}
	}
	switch rest := len(voters) - 1; {
	case !m.Voter:
		return nil, rpc.Errorf(rpc.InvalidRequest, "node %s has no vote: there is nothing to remove; see wasmatrix operator raft ls", m.Name)
	case m.NodeID == s.cfg.NodeID:
		return nil, rpc.Errorf(rpc.InvalidRequest, "node %s leads: hand leadership over first, with wasmatrix operator raft transfer", m.Name)
	case req.GetForce():
	case live < rest/2+1:
		return nil, rpc.Errorf(rpc.InvalidRequest, "without %s, %d of %d voters would be alive, and nobody could lead: bring a dead one back or remove that first; --force removes %s all the same", m.Name, live, rest, m.Name)
	case m.State == "alive":
		return nil, rpc.Errorf(rpc.InvalidRequest, "node %s is alive, and the cluster chooses its voters among the living: stop the node to have another one take its vote; --force removes it all the same, and it may get its vote back", m.Name)
	}
	if err := s.cluster.RemoveVoter(ctx, m.NodeID); err != nil {
		return nil, fmt.Errorf("remove the vote of node %s: %w", m.Name, err)
	}
	s.cfg.Log.WarnContext(ctx, "removed a voter, as was asked", "peer", m.Name, "peer_id", m.NodeID, "force", req.GetForce())
	return &pb.RemoveVoterResponse{NodeId: m.NodeID, Name: m.Name}, nil
}

// TransferLeadership implements the RPC of that name.
//
// The forwarding of calls ends a call when its leader is none any more, which is what this one is about: so
// it passes itself on, and the node that was asked waits for the new leader.
func (s *Service) TransferLeadership(ctx context.Context, req *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	before := s.cluster.Leadership()
	switch {
	case req.GetDirect() || before.Self:
		if err := s.handOver(ctx, req.GetTo()); err != nil || req.GetDirect() {
			return &pb.TransferLeadershipResponse{}, err
		}
	case before.Addr == "":
		return nil, rpc.Errorf(rpc.NoLeader, "no leader is known at the moment; if that lasts, see wasmatrix operator raft ls")
	default:
		c, err := s.client(before.Addr)
		if err == nil {
			_, err = c.TransferLeadership(ctx, &pb.TransferLeadershipRequest{To: req.GetTo(), Direct: true})
		}
		if err != nil {
			return nil, rpc.FromError(err)
		}
	}
	return s.waitLeader(ctx, req.GetTo(), before)
}

// handOver makes another voter the leader in this one's place.
func (s *Service) handOver(ctx context.Context, to string) error {
	if err := s.leading(); err != nil {
		return err
	}
	members := s.byID()
	var heirs []string
	for _, id := range s.cluster.Voters() {
		if id != s.cfg.NodeID && members[id].State == "alive" {
			heirs = append(heirs, members[id].Name)
		}
	}
	slices.Sort(heirs)
	if to == "" {
		if len(heirs) == 0 {
			return rpc.Errorf(rpc.InvalidRequest, "node %s leads, and no other voter is alive to take over; see wasmatrix operator raft ls", s.cfg.NodeName)
		}
		return s.cluster.TransferLeadership(ctx)
	}
	m, err := s.resolve(to)
	switch {
	case err != nil:
		return err
	case m.NodeID == s.cfg.NodeID:
		return nil // it leads
	case !slices.Contains(heirs, m.Name):
		return rpc.Errorf(rpc.InvalidRequest, "node %s can't lead: only voters that are alive can, which are %s", m.Name, strings.Join(append(heirs, s.cfg.NodeName), ", "))
	}
	return s.cluster.TransferLeadershipTo(ctx, m.NodeID)
}

// waitLeader waits until this node knows who took over: a certain node, or any other than before.
func (s *Service) waitLeader(ctx context.Context, to string, before cluster.Leadership) (*pb.TransferLeadershipResponse, error) {
	for {
		changed := s.cluster.Changed()
		now := s.cluster.Leadership()
		name := s.byID()[now.NodeID].Name
		asked := to != "" && (to == name || to == now.NodeID)
		if now.NodeID != "" && (asked || to == "" && now.NodeID != before.NodeID) {
			return &pb.TransferLeadershipResponse{LeaderId: now.NodeID, LeaderName: name, Term: now.Term}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, rpc.Errorf(rpc.Timeout, "leadership was handed over, and this node has not heard who leads now: %w", ctx.Err())
		}
	}
}

// SaveSnapshot implements the RPC of that name.
func (s *Service) SaveSnapshot(ctx context.Context, _ *pb.SaveSnapshotRequest) (*pb.SaveSnapshotResponse, error) {
	if err := s.leading(); err != nil {
		return nil, err
	}
	if err := errors.Join(s.cluster.Barrier(ctx), s.cluster.VerifyLeader(ctx)); err != nil {
		return nil, fmt.Errorf("make sure that all that was written is there: %w", err)
	}
	return &pb.SaveSnapshotResponse{Snapshot: s.snapshot()}, nil
}
