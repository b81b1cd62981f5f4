package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	swarmAgents    = 1000
	swarmInstances = 100 // of each agent
	swarmBeat      = 5 * time.Second
)

// manyAgents measures what a thousand agents with a hundred instances each are to one leader. The agents are simulated
// in this process, as far as the control plane sees agents: each gossips, registers, serves its list, and reports to all
// voters; none runs anything. The five nodes that may vote are real.
func manyAgents(b *bench) {
	c := b.formed(5, "--label", "real=yes")
	hash := b.warm(c, b.small())
	began := time.Now()
	s := b.newSwarm(c, hash)
	const wanted = swarmAgents * swarmInstances
	const nearly = wanted * 95 / 100 // a few agents of so many in one process are silent at any moment
	rig.Wait(b, "the leader to know all instances", 5*time.Minute, func() error { return knows(c, wanted) })
	report(b, fmt.Sprintf("%d agents with %d instances each: joined, registered and known", swarmAgents, swarmInstances), time.Since(began), 0, "")

	leader := c.Leader()
	settle(30 * time.Second) // joining is not the steady state
	before := b.cpuTime(leader)
	const watched = 30 * time.Second
	settle(watched)
	report(b, "the same: CPU of the leader", 100*float64(b.cpuTime(leader)-before)/float64(watched), 100, "% of a core")
	report(b, "the same: RSS of the leader", float64(b.rss(leader))/mib, 1.5*1024, "MiB")

	var took, rebuilt []time.Duration
	for range min(b.rounds, 3) {
		settle(15 * time.Second) // a node that is back is told everything by all agents, which share the machine with it
		leader := c.Leader()
		client := b.dial(c.Followers()[0])
		began := time.Now()
		leader.Kill()
		b.startOnReal(client, hash)
		took = append(took, time.Since(began))
		rig.Wait(b, "the new leader to know nearly all instances", patience, func() error { return knows(c, nearly) })
		rebuilt = append(rebuilt, time.Since(began))
		leader.Restart()
		rig.Wait(b, "the node to be back", patience, func() error { _, err := leader.TryStatus(); return err })
		b.threeVoters(c)
	}
	report(b, "the same: kill -9 of the leader to the next accepted start, median", quantile(took, 0.5), 3*time.Second, "")
	report(b, "the same: to the new leader knowing nearly all instances, median", quantile(rebuilt, 0.5), 0, "")
	s.end()
}

// knows returns nil where the leader has finished recovering and knows that many running instances.
func knows(c *rig.Cluster, wanted int) error {
	status, err := c.Any().TryStatus()
	switch {
	case err != nil:
		return err
	case status.Recovering:
		return errors.New("the leader is recovering")
	case status.Instances["running"] < wanted:
		return fmt.Errorf("%d of %d are known", status.Instances["running"], wanted)
	}
	return nil
}

// startOnReal starts an instance on one of the nodes that run any.
func (b *bench) startOnReal(client pb.ControlPlaneServiceClient, hash string) {
	req := &pb.StartInstanceRequest{
		InstanceIds: []string{uuid.Must(uuid.NewV7()).String()},
		Spec: &pb.InstanceSpec{
			Name: "real", ModuleHash: hash, Args: []string{"forever"}, MemoryLimitBytes: mib, Constraints: map[string]string{"real": "yes"},
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := rpc.Retry(ctx, func(ctx context.Context) error {
		resp, err := client.StartInstance(ctx, req)
		if err != nil {
			return err
		}
		for _, f := range resp.GetFailures() {
			return rpc.Errorf(rpc.Code(f.GetErrorCode()), "%s", f.GetMessage())
		}
		return nil
	})
	if err != nil {
		b.Fatalf("start: %v", err)
	}
}

// swarm is many simulated agents.
type swarm struct {
	b      *bench
	cancel context.CancelFunc
	work   errgroup.Group
	server *grpc.Server
	peers  *rpc.Peers
	voters []*rig.Node // those that may vote

	mu     sync.Mutex            // guards agents
	agents map[string]*simulated // by IP
}

// simulated is one agent.
type simulated struct {
	pb.UnimplementedNodeAgentServiceServer

	node   *pb.Node
	ip     string
	bootID string
	all    []*pb.Instance
	gossip *memberlist.Memberlist
}

func (b *bench) newSwarm(c *rig.Cluster, hash string) *swarm {
	ctx, cancel := context.WithCancel(context.Background())
	s := &swarm{b: b, cancel: cancel, peers: rpc.NewPeers(), voters: c.Nodes(), agents: map[string]*simulated{}}
	s.server = grpc.NewServer()
	pb.RegisterNodeAgentServiceServer(s.server, swarmService{swarm: s})
	pb.RegisterModuleServiceServer(s.server, swarmModules{})
	b.Cleanup(s.end)
	clusterID := c.Any().Status().ClusterID
	var joins errgroup.Group
	joins.SetLimit(8)
	for n := range swarmAgents {
		a := s.simulate(n, hash)
		joins.Go(func() error { return s.join(ctx, a, clusterID) })
	}
	if err := joins.Wait(); err != nil {
		b.Fatal(err)
	}
	return s
}

// simulate makes an agent. Its id sorts behind those of real nodes, which the leader so prefers as voters.
func (s *swarm) simulate(n int, hash string) *simulated {
	ip := fmt.Sprintf("127.250.%d.%d", n/250, 1+n%250)
	now := timestamppb.Now()
	a := &simulated{
		ip: ip, bootID: uuid.NewString(),
		node: &pb.Node{
			NodeId: fmt.Sprintf("ffffffff-ffff-4fff-bfff-%012x", n), Name: fmt.Sprintf("simulated-%04d", n), Protocol: 1, Version: "simulated",
			RpcAddr: ip + ":7401", GossipAddr: ip + ":7400", HttpAddr: ip + ":7402",
			Limits: &pb.NodeLimits{MaxInstances: 10_000, MaxMemoryBytes: 64 << 30, MaxCpuMillicores: 16_000}, State: pb.NodeState_NODE_STATE_ACTIVE,
		},
	}
	for k := range swarmInstances {
		a.all = append(a.all, &pb.Instance{
			InstanceId: uuid.NewString(), NodeId: a.node.GetNodeId(), NodeName: a.node.GetName(), Generation: 1, Revision: 3,
			Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, CreatedAt: now, PlacedAt: now, StartedAt: now,
			Spec: &pb.InstanceSpec{
				Name: fmt.Sprintf("app-%d", k), ModuleHash: hash, Args: []string{"forever"}, MemoryLimitBytes: 64 * mib,
				RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS, Backoff: durationpb.New(time.Second)},
			},
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents[ip] = a
	return a
}

// join has an agent serve, gossip, register and report.
func (s *swarm) join(ctx context.Context, a *simulated, clusterID string) error {
	ln, err := net.Listen("tcp", a.node.GetRpcAddr())
	if err != nil {
		return err
	}
	s.work.Go(func() error {
		if err := s.server.Serve(ln); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	meta, err := proto.Marshal(&pb.GossipMeta{
		Name: a.node.GetName(), ClusterId: clusterID, Protocol: 1, Version: "simulated", RpcPort: 7401, HttpPort: 7402,
	})
	if err != nil {
		return err
	}
	m := memberlist.DefaultLANConfig()
	m.Name, m.BindAddr, m.BindPort, m.AdvertiseAddr, m.AdvertisePort = a.node.GetNodeId(), a.ip, 7400, a.ip, 7400
	// It answers like any other, and asks and passes on less: all of them share two cores with the nodes.
	m.ProbeInterval, m.ProbeTimeout, m.PushPullInterval = 20*time.Second, 5*time.Second, 10*time.Minute
	m.GossipInterval, m.GossipNodes, m.RetransmitMult = time.Second, 1, 1
	m.Delegate = metaOnly(meta)
	m.Logger = log.New(io.Discard, "", 0)
	if a.gossip, err = memberlist.Create(m); err != nil {
		return err
	}
	var all []string
	for _, v := range s.voters {
		all = append(all, v.Gossip())
	}
	for joined := 0; joined < len(all); { // a node may be busy with the others
		if joined, err = a.gossip.Join(all); ctx.Err() != nil {
			return err
		}
	}
	for _, v := range s.voters {
		s.work.Go(func() error { return s.report(ctx, a, v) })
	}
	return s.register(ctx, a, clusterID)
}

func (s *swarm) register(ctx context.Context, a *simulated, clusterID string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return rpc.Retry(ctx, func(ctx context.Context) error {
		conn, err := s.peers.Conn(s.voters[0].RPC())
		if err != nil {
			return err
		}
		_, err = pb.NewControlPlaneServiceClient(conn).RegisterNode(ctx, &pb.RegisterNodeRequest{Node: a.node, ClusterId: clusterID})
		return err
	})
}

// report keeps a report stream to a node, voter or not, over as many connections as it takes.
func (s *swarm) report(ctx context.Context, a *simulated, to *rig.Node) error {
	conn, err := rpc.Dial(to.RPC()) // each its own, as agents have
	if err != nil {
		return err
	}
	defer conn.Close()
	for ctx.Err() == nil {
		_ = s.reportOnce(ctx, a, conn) // the node may be dead just now
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (s *swarm) reportOnce(ctx context.Context, a *simulated, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewControlPlaneServiceClient(conn).ReportStatus(ctx)
	if err != nil {
		return err
	}
	say := func(m *pb.ReportStatusRequest) (*pb.ReportStatusResponse, error) {
		m.NodeId, m.BootId = a.node.GetNodeId(), a.bootID
		m.Load = &pb.NodeLoad{Instances: swarmInstances, CommittedMemoryBytes: swarmInstances * 64 * mib}
		if err := stream.Send(m); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	const seq = swarmInstances + 1
	known, err := say(&pb.ReportStatusRequest{Seq: seq})
	if err != nil {
		return err
	}
	if known.GetBootId() != a.bootID || known.GetSeq() < seq {
		if _, err := say(&pb.ReportStatusRequest{Full: true, Seq: seq, Instances: a.all}); err != nil {
			return err
		}
	}
	beat := time.NewTicker(swarmBeat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := say(&pb.ReportStatusRequest{AfterSeq: seq, Seq: seq}); err != nil {
			return err
		}
	}
}

func (s *swarm) end() {
	s.cancel()
	s.server.Stop()
	_ = s.work.Wait() // a listener that broke shows in the figures
	for _, a := range s.agents {
		if a.gossip != nil {
			_ = a.gossip.Shutdown()
		}
	}
	s.agents = nil
	_ = s.peers.Close()
}

// called returns the agent that a call is for: they share a server and differ by address.
func (s *swarm) called(ctx context.Context) (*simulated, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("a call from nowhere")
	}
	ip, _, err := net.SplitHostPort(p.LocalAddr.String())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.agents[ip]; a != nil {
		return a, nil
	}
	return nil, rpc.Errorf(rpc.NodeNotFound, "no agent at %s", ip)
}

// swarmService is what the leader asks an agent.
type swarmService struct {
	pb.UnimplementedNodeAgentServiceServer

	swarm *swarm
}

// ListInstances implements the RPC of that name.
func (s swarmService) ListInstances(req *pb.NodeAgentServiceListInstancesRequest, stream pb.NodeAgentService_ListInstancesServer) error {
	a, err := s.swarm.called(stream.Context())
	if err != nil {
		return err
	}
	resp := &pb.NodeAgentServiceListInstancesResponse{BootId: a.bootID, Seq: swarmInstances + 1}
	if req.GetHaveBootId() == a.bootID && req.GetHaveSeq() == resp.GetSeq() {
		resp.Unchanged = true
	} else {
		resp.Instances = a.all
	}
	return stream.Send(resp)
}

// QueryInstance implements the RPC of that name.
func (s swarmService) QueryInstance(ctx context.Context, req *pb.NodeAgentServiceQueryInstanceRequest) (*pb.NodeAgentServiceQueryInstanceResponse, error) {
	return nil, rpc.Errorf(rpc.InstanceNotFound, "this agent is simulated and does not know %s", req.GetInstanceId())
}

// swarmModules says that an agent holds whatever is referenced.
type swarmModules struct {
	pb.UnimplementedModuleServiceServer
}

// KeepModules implements the RPC of that name.
func (swarmModules) KeepModules(_ context.Context, req *pb.KeepModulesRequest) (*pb.KeepModulesResponse, error) {
	resp := &pb.KeepModulesResponse{}
	for _, hash := range slices.Compact(slices.Sorted(slices.Values(req.GetModuleHashes()))) {
		resp.Modules = append(resp.Modules, &pb.Module{ModuleHash: hash, SizeBytes: 1, StoredAt: timestamppb.Now()})
	}
	return resp, nil
}

// metaOnly is what a simulated agent tells through gossip.
type metaOnly []byte

// NodeMeta implements memberlist.Delegate, as do the others, which have nothing to do.
func (m metaOnly) NodeMeta(int) []byte           { return m }
func (metaOnly) NotifyMsg([]byte)                {}
func (metaOnly) GetBroadcasts(int, int) [][]byte { return nil }
func (metaOnly) LocalState(bool) []byte          { return nil }
func (metaOnly) MergeRemoteState([]byte, bool)   {}
