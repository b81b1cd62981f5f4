package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// pageSize is how many instances one message of a list holds.
const pageSize = 1000

// askLeaderTimeout bounds how long a node waits for the leader before it answers by itself.
const askLeaderTimeout = 2 * time.Second

// QueryInstance returns the one instance that a reference stands for.
func (s *Server) QueryInstance(ctx context.Context, req *pb.QueryInstanceRequest) (*pb.QueryInstanceResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	i, err := s.view.resolve(req.GetRef())
	if err != nil && l.recovering() {
		if err := l.waitRecovered(ctx); err != nil {
			return nil, err
		}
		i, err = s.view.resolve(req.GetRef())
	}
	if err != nil {
		return nil, refError(err)
	}
	return &pb.QueryInstanceResponse{Instance: s.usedNow(ctx, s.durable([]*pb.Instance{i})[0])}, nil
}

// ListInstances streams the instances that are asked for. The first message is there even if it is empty.
func (s *Server) ListInstances(req *pb.ListInstancesRequest, stream pb.ControlPlaneService_ListInstancesServer) error {
	l, err := s.leading()
	if err != nil {
		return err
	}
	nodeID := ""
	if req.GetNode() != "" {
		if nodeID, err = s.nodeID(req.GetNode()); err != nil {
			return err
		}
	}
	found, total := s.list(req, nodeID)
	first := &pb.ListInstancesResponse{Recovering: l.recovering(), MissingNodes: s.missing(l), Total: proto.Uint32(uint32(total))}
	first.Instances = found[:min(pageSize, len(found))]
	if err := stream.Send(first); err != nil {
		return err
	}
	for page := range slices.Chunk(found[len(first.Instances):], pageSize) {
		if err := stream.Send(&pb.ListInstancesResponse{Instances: page}); err != nil {
			return err
		}
	}
	return nil
}

// list returns the page of instances that a request asks for, and how many there are on all pages. nodeID is the id that the
// request's node stands for, if it names one.
func (s *Server) list(req *pb.ListInstancesRequest, nodeID string) (page []*pb.Instance, total int) {
	found := s.view.list(req, nodeID)
	switch req.GetSort() {
	case pb.InstanceSort_INSTANCE_SORT_CPU, pb.InstanceSort_INSTANCE_SORT_MEMORY:
		s.usages.joinAll(found)
		page, total = fact.Select(found, req)
	default:
		page, total = fact.Select(found, req)
		s.usages.joinAll(page)
	}
	return s.durable(page), total
}

// GetClusterStatus returns the cluster at a glance.
func (s *Server) GetClusterStatus(ctx context.Context, _ *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	resp := &pb.GetClusterStatusResponse{
		ClusterId: s.cluster.ClusterID(), ClusterName: s.fsm.ClusterName(), LeaderId: s.cfg.NodeID, LeaderName: s.cfg.NodeName,
		Term: l.fence.GetTerm(), Recovering: l.recovering(), MissingNodes: s.missing(l),
		Members: map[string]uint32{}, Instances: s.view.counts(), Version: s.cfg.Version,
	}
	for _, m := range s.members() {
		resp.Members[m.GetState()]++
		if m.GetRole() != "agent" {
			resp.Voters = append(resp.Voters, m.GetName())
		}
	}
	slices.Sort(resp.Voters)
	return resp, nil
}

// ListMembers returns the nodes as the leader knows them; without a leader, as this node does.
func (s *Server) ListMembers(ctx context.Context, req *pb.ListMembersRequest) (*pb.ListMembersResponse, error) {
	if leader := s.cluster.Leadership(); !req.GetLocal() && !leader.Self && leader.Addr != "" {
		ctx, cancel := context.WithTimeout(ctx, askLeaderTimeout)
		defer cancel()
		if conn, err := s.peers.Conn(leader.Addr); err == nil {
			resp, err := pb.NewControlPlaneServiceClient(conn).ListMembers(ctx, &pb.ListMembersRequest{Local: true})
			if err == nil {
				return resp, nil
			}
			s.cfg.Log.DebugContext(ctx, "the leader did not list the members; answering from here", "addr", leader.Addr, "err", err)
		}
	}
	return &pb.ListMembersResponse{Members: s.members()}, nil
}

// members joins what gossip sees with what the metadata and the view know, by name.
func (s *Server) members() []*pb.Member {
	leader := s.cluster.Leadership().NodeID
	follows := slices.Contains(s.cluster.Voters(), s.cfg.NodeID) // the log; elsewhere the metadata is of long ago
	var all []*pb.Member
	for _, m := range s.cluster.Members() {
		usage := s.view.usage(m.NodeID)
		member := &pb.Member{
			NodeId: m.NodeID, Name: m.Name, GossipAddr: m.GossipAddr, RpcAddr: m.RPCAddr, HttpAddr: m.HTTPAddr,
			Role: role(m, leader), State: m.State, Version: m.Version,
			Instances: uint32(usage.Instances), CommittedMemoryBytes: usage.Memory, CommittedCpuMillicores: uint32(usage.CPU), Vitals: s.board.node(m.NodeID),
		}
		if n, ok := s.fsm.Node(m.NodeID); ok {
			member.Labels, member.Limits = n.GetLabels(), n.GetLimits()
			switch {
			case m.State != "alive":
			case s.suspected(m.NodeID):
				member.State = "suspect"
			case follows && n.GetState() == pb.NodeState_NODE_STATE_DRAINING:
				member.State = "draining"
			}
		}
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b *pb.Member) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

// suspected says of a node that gossip holds for alive whether this leader has not heard its agent for
// longer than it is ever silent.
func (s *Server) suspected(nodeID string) bool {
	l, err := s.leading()
	return err == nil && time.Since(l.began) > 2*reportsEvery && !s.reporters.reporting(nodeID)
}

func role(m cluster.Member, leader string) string {
	switch {
	case m.NodeID == leader && reachable(m):
		return "leader"
	case m.Voter:
		return "voter"
	}
	return "agent"
}

// FollowLogs passes on the output of an instance from the agent that has it.
func (s *Server) FollowLogs(req *pb.FollowLogsRequest, stream pb.ControlPlaneService_FollowLogsServer) error {
	ctx := stream.Context()
	self, err := s.peers.Conn(s.cfg.RPCAddr) // through this node's own server, which forwards to the leader
	if err != nil {
		return err
	}
	found, err := pb.NewControlPlaneServiceClient(self).QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: req.GetRef()})
	if err != nil {
		return err
	}
	i := found.GetInstance()
	if i.GetNodeId() == "" { // also where a node of that name is back
		return rpc.Errorf(rpc.CommunicationFailure, "the output of instance %s is gone: %s", i.GetInstanceId(), i.GetLastError())
	}
	m, ok := s.member(i.GetNodeId())
	if !ok || !reachable(m) {
		return rpc.Errorf(rpc.CommunicationFailure, "the output of instance %s is on node %s, which is not reachable", i.GetInstanceId(), i.GetNodeName())
	}
	agent, err := s.agent(m)
	if err != nil {
		return err
	}
	logs, err := agent.StreamLogs(ctx, &pb.StreamLogsRequest{InstanceId: i.GetInstanceId(), Follow: req.GetFollow(), Tail: req.GetTail()})
	if err != nil {
		return err
	}
	for {
		some, err := logs.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.FollowLogsResponse{Entries: some.GetEntries()}); err != nil {
			return err
		}
	}
}

// describe names a few instances for an error message.
func describe(instances []*pb.Instance) string {
	if len(instances) == 1 {
		return fmt.Sprintf("instance %s (%s)", instances[0].GetInstanceId(), instances[0].GetSpec().GetName())
	}
	return fmt.Sprintf("%d instances (%s …)", len(instances), instances[0].GetInstanceId())
}
