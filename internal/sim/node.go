package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/agent"
	"github.com/wasmatrix/wasmatrix/controlplane"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// node is one host: what outlives its process.
type node struct {
	sim            *Sim
	id, name, addr string
	voter          *voter // nil where it has no vote
	dir            string // where its journals are, one of each life

	lives int
	life  *life // nil while its process is not there
}

// life is one process of a node: the parts that node/ would wire, in one process with those of the others.
type life struct {
	node    *node
	addr    string
	journal string
	ctx     context.Context //nolint:containedctx // it is the life itself: what it began ends with it
	end     context.CancelFunc
	work    sync.WaitGroup

	fsm     *raftfsm.FSM
	random  *rand.Rand    // of its registration
	refused map[int]error // by index, what the state said to entries; guarded by quorum.mu
	cluster *clusterView
	agent   *agent.Agent
	control *controlplane.Server
	self    pb.ControlPlaneServiceClient

	unary   map[string]unaryMethod
	streams map[string]streamMethod
	before  []grpc.UnaryServerInterceptor
	around  []grpc.StreamServerInterceptor
}

type unaryMethod struct {
	impl any
	desc grpc.MethodDesc
}

type streamMethod struct {
	impl any
	desc grpc.StreamDesc
}

// start starts the node's process, with the journal that the last one left.
func (n *node) start() error {
	n.lives++
	l := &life{
		node: n, addr: n.addr, journal: filepath.Join(n.dir, fmt.Sprint(n.lives)), fsm: raftfsm.New(), random: rand.New(rand.NewPCG(n.sim.Seed, uint64(n.lives))), refused: map[int]error{},
		unary: map[string]unaryMethod{}, streams: map[string]streamMethod{},
	}
	l.ctx, l.end = context.WithCancel(context.Background())
	log := n.sim.log.With("at", n.name)
	if n.sim.log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l.cluster = newClusterView(n.sim, l)
	peers := rpc.NewPeersOver(n.sim.net.dial(l))
	var err error
	l.agent, err = agent.New(agent.Config{
		NodeID: n.id, NodeName: n.name, JournalDir: l.journal, OnLeader: l.cluster.SetLeaderHint, Log: log,
	}, n.sim.engine, n.sim.store, peers, votersOf{l.cluster})
	if err != nil {
		return err
	}
	l.control = controlplane.New(controlplane.Config{NodeID: n.id, NodeName: n.name, RPCAddr: n.addr, Log: log}, l.cluster, l.fsm, peers, l.agent)
	l.before, l.around = rpc.Interceptors(rpc.ServerConfig{Leader: leaderOf{l.cluster}, Peers: peers, Log: log})
	l.agent.Register(l)
	l.control.Register(l)
	self, err := peers.Conn(n.addr)
	if err != nil {
		return err
	}
	l.self = pb.NewControlPlaneServiceClient(self)

	n.life = l
	if n.voter != nil {
		n.sim.quorum.start(n.voter, l)
	}
	n.sim.net.change(func() { n.sim.net.nodes[n.addr] = l })
	for _, run := range []func(context.Context) error{l.agent.Run, l.control.Run, l.keepContact, l.register} {
		l.work.Go(func() {
			if err := run(l.ctx); err != nil && l.ctx.Err() == nil {
				n.sim.fail(fmt.Errorf("a part of %s ended: %w", n.name, err))
			}
		})
	}
	return nil
}

// kill ends the node's process at once. What was on its disk is there for the next one.
func (n *node) kill() error {
	l := n.life
	n.sim.net.change(func() { delete(n.sim.net.nodes, n.addr) }) // first, so that nothing is said that the copy does not hold
	if n.voter != nil {
		n.sim.quorum.end(n.voter)
	}
	n.life = nil
	// The agent writes on while it is taken down, as no killed one would.
	err := os.CopyFS(filepath.Join(n.dir, fmt.Sprint(n.lives+1)), os.DirFS(l.journal))
	l.end()
	l.work.Wait()
	return err
}

// RegisterService implements grpc.ServiceRegistrar.
func (l *life) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		l.unary["/"+desc.ServiceName+"/"+m.MethodName] = unaryMethod{impl, m}
	}
	for _, s := range desc.Streams {
		l.streams["/"+desc.ServiceName+"/"+s.StreamName] = streamMethod{impl, s}
	}
}

// serve answers a call that has come.
func (l *life) serve(ctx context.Context, method string, raw []byte) ([]byte, error) {
	m, known := l.unary[method]
	if !known {
		return nil, status.Errorf(codes.Unimplemented, "there is no %s", method)
	}
	chain := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		info.FullMethod = method
		l.node.sim.log.DebugContext(ctx, "serving", "at", l.node.name, "method", path.Base(method), "request", req)
		next := handler
		if plant := l.node.sim.Plant; plant != nil {
			next = func(ctx context.Context, req any) (any, error) {
				return plant(l.node.name, req, func() (any, error) { return handler(ctx, req) })
			}
		}
		for i := len(l.before) - 1; i >= 0; i-- {
			inner, interceptor := next, l.before[i]
			next = func(ctx context.Context, req any) (any, error) { return interceptor(ctx, req, info, inner) }
		}
		return next(ctx, req)
	}
	resp, err := m.desc.Handler(m.impl, ctx, func(into any) error { return unmarshal(raw, into) }, chain)
	l.node.sim.log.DebugContext(ctx, "served", "at", l.node.name, "method", path.Base(method), "answer", resp, "err", err)
	if err != nil {
		return nil, err
	}
	return marshal(resp)
}

// serveStream serves a stream to its end.
func (l *life) serveStream(method string, ss grpc.ServerStream) error {
	m, known := l.streams[method]
	if !known {
		return status.Errorf(codes.Unimplemented, "there is no %s", method)
	}
	info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: m.desc.ClientStreams, IsServerStream: m.desc.ServerStreams}
	next := m.desc.Handler
	for i := len(l.around) - 1; i >= 0; i-- {
		inner, interceptor := next, l.around[i]
		next = func(srv any, ss grpc.ServerStream) error { return interceptor(srv, ss, info, inner) }
	}
	return next(m.impl, ss)
}

// register keeps the node registered, as node/ does.
func (l *life) register(ctx context.Context) error {
	var due time.Time
	registered := false
	for {
		changed := l.cluster.Changed()
		if (registered || l.cluster.Leadership().NodeID != "") && !time.Now().Before(due) {
			err := l.registerOnce(ctx)
			due = time.Now().Add(30 * time.Second)
			switch {
			case rpc.CodeOf(err) == rpc.InvalidRequest:
				return err
			case err != nil:
				due = time.Now().Add(time.Second)
			default:
				registered = true
			}
		}
		wait := time.Until(due)
		if wait <= 0 {
			wait = 30 * time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (l *life) registerOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	said := &pb.Node{
		NodeId: l.node.id, Name: l.node.name, RpcAddr: l.addr, State: pb.NodeState_NODE_STATE_ACTIVE,
		Limits: &pb.NodeLimits{MaxInstances: 1000, MaxMemoryBytes: 1 << 40, MaxCpuMillicores: 4000},
	}
	return retry(ctx, l.random, func(ctx context.Context) error {
		said := proto.CloneOf(said)
		said.Epoch = l.agent.Epoch()
		resp, err := l.self.RegisterNode(ctx, &pb.RegisterNodeRequest{Node: said, ClusterId: clusterID, Resuming: l.agent.Resuming()})
		if err == nil {
			l.agent.Resume(resp.GetEpoch(), resp.GetSuperseded())
		}
		return err
	})
}

// keepContact keeps the agent in contact with whoever leads, as node/ does.
func (l *life) keepContact(ctx context.Context) error {
	for {
		var next <-chan time.Time
		if req := l.agent.ContactRequest(); req != nil {
			sent := time.Now()
			call, cancel := context.WithTimeout(ctx, time.Second)
			resp, err := l.self.RenewContact(call, req)
			cancel()
			if err == nil {
				err = l.agent.Contact(sent, resp)
			}
			next = time.After(time.Second)
			if err != nil || len(resp.GetCleared()) < len(req.GetWaiting()) {
				next = time.After(200 * time.Millisecond)
			}
		}
		select {
		case <-l.agent.ContactWanted():
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

var errDown = errors.New("its process is not there")
