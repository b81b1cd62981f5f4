package controlplane

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// At most so many agents are asked at once: all lists at the same time would be a stampede. Most answer that they have
	// nothing new, and what takes long is to connect to them.
	collectAtOnce = 128
	// How long one agent may take to answer with all that it has.
	collectTimeout = 5 * time.Second
	// How soon an agent that did not answer is asked again.
	collectAgain = 100 * time.Millisecond
)

// lead is one term of leadership, from the barrier to its end.
type lead struct {
	ctx   context.Context // ends with the leadership
	fence *pb.Fence
	began time.Time
	// Closed when the view is rebuilt as far as it will be.
	recovered chan struct{}
	// Has a token when unanswered has grown.
	moreUnanswered chan struct{}
	// Has a token when the nodes are to be told of providers at once.
	moreProviders chan struct{}

	tabling sync.Mutex // guards tables; held while what is told of providers is put together
	tables  uint64

	mu sync.Mutex // guards all below

	answered map[string]struct{}   // ids of nodes that know this leader and whose facts it has
	gone     map[string]struct{}   // ids of nodes that refused the connection: nothing runs there
	asking   map[string]struct{}   // ids of nodes that are being asked now
	starts   map[string]*startCall // by instance id; starts under way
	granted  map[grant]time.Time   // when this leader granted contact last
	stopping map[string]int        // by instance id; stops under way, which no move may undo
	// By instance id: the generation of a move that came to nothing known.
	ordered map[string]uint64
	// Node id → provider id → what that node said was wrong with it.
	failures map[string]map[string]string
	// By instance id: when a first start got no answer last, whose caller has not asked again since.
	unanswered map[string]time.Time
	seen       map[string]string // node id → the state last seen, for events
	// By module hash: who said in the last round that they hold it. Never changed, but replaced.
	holders map[string][]cluster.Member
	// How many modules no node had in the last round.
	lostModules int
}

// keepsModule returns the ids of some nodes that hold a module, as far as the last round of asking goes.
func (l *lead) keepsModule(hash string) []string {
	const most = 3
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for _, m := range l.holders[hash][:min(most, len(l.holders[hash]))] {
		ids = append(ids, m.NodeID)
	}
	return ids
}

// Run follows the leadership of the cluster until ctx ends, and leads while it is this node's.
func (s *Server) Run(ctx context.Context) error {
	if err := s.registerMetrics(); err != nil {
		return err
	}
	var term uint64
	stop := func() {}
	defer func() { stop() }()
	var g errgroup.Group
	defer func() { _ = g.Wait() }() // it returns nothing
	g.Go(func() error { s.followEpochs(ctx); return nil })
	g.Go(func() error { s.keepOrphans(ctx); return nil })
	g.Go(func() error { s.keepBoard(ctx); return nil })
	for {
		changed := s.cluster.Changed()
		now := s.cluster.Leadership()
		switch {
		case !now.Self && term != 0:
			stop()
			stop, term = func() {}, 0
		case now.Self && now.Term != term:
			stop()
			stop, term = s.startLeading(ctx, now.Term), now.Term
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// startLeading leads in the background; the function it returns ends that and waits.
func (s *Server) startLeading(ctx context.Context, term uint64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.leadTerm(ctx, term)
	}()
	return func() { cancel(); <-done }
}

func (s *Server) leadTerm(ctx context.Context, term uint64) {
	began := time.Now()
	log := s.cfg.Log.With("term", term)
	if err := s.cluster.Barrier(ctx); err != nil {
		if ctx.Err() != nil {
			return
		}
		log.WarnContext(ctx, "could not finish taking over; handing leadership on", "err", err)
		if err := s.cluster.TransferLeadership(ctx); err != nil {
			log.ErrorContext(ctx, "could not hand leadership on", "err", err)
		}
		return
	}
	if !s.waitNamed(ctx) {
		return
	}
	s.view.setEpochs(s.fsm.Nodes(), s.reporters.reporting) // a follower hears of a loss a little later than the log has it
	l := &lead{
		ctx:            ctx,
		began:          began,
		fence:          &pb.Fence{Term: term, LeaderId: s.cfg.NodeID, LeaderAddr: s.cfg.RPCAddr},
		recovered:      make(chan struct{}),
		answered:       map[string]struct{}{},
		gone:           map[string]struct{}{},
		asking:         map[string]struct{}{},
		starts:         map[string]*startCall{},
		granted:        map[grant]time.Time{},
		stopping:       map[string]int{},
		ordered:        map[string]uint64{},
		unanswered:     map[string]time.Time{},
		moreUnanswered: make(chan struct{}, 1),
		failures:       map[string]map[string]string{},
		moreProviders:  make(chan struct{}, 1),
		seen:           map[string]string{},
	}
	s.view.dropReservations()
	defer s.view.dropReservations()
	s.setLead(l)
	defer s.setLead(nil)
	s.clusterEvent(l.ctx, "leader.elected", s.cfg.NodeID, s.cfg.NodeName, nil)

	var g errgroup.Group
	g.Go(func() error { s.collect(l); return nil })
	g.Go(func() error { s.stopDoubles(l); return nil })
	g.Go(func() error { s.watchMembers(l); return nil })
	g.Go(func() error { s.watchLosses(l); return nil })
	g.Go(func() error { s.relocate(l); return nil })
	g.Go(func() error { s.careForModules(l); return nil })
	g.Go(func() error { s.giveUpUnanswered(l); return nil })
	g.Go(func() error { s.keepProviders(l); return nil })
	select {
	case <-l.recovered:
		s.metrics.recovery.Observe(time.Since(began).Seconds())
		log.InfoContext(ctx, "leading", "duration", time.Since(began), "missing", s.missing(l))
	case <-ctx.Done():
	}
	_ = g.Wait() // its parts end with ctx and return nothing
	log.InfoContext(ctx, "no longer leading")
}

// waitNamed waits until the cluster has its id, which its founder writes after its first election.
func (s *Server) waitNamed(ctx context.Context) bool {
	for {
		changed := s.cluster.Changed()
		if s.cluster.ClusterID() != "" {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// fenceFor is the fence of an order to a node.
func (s *Server) fenceFor(l *lead, nodeID string) *pb.Fence {
	node, _ := s.fsm.Node(nodeID)
	return &pb.Fence{
		Term: l.fence.GetTerm(), LeaderId: l.fence.GetLeaderId(), LeaderAddr: l.fence.GetLeaderAddr(),
		NodeEpoch: node.GetEpoch(), VoterIds: s.cluster.Voters(),
	}
}

func (s *Server) setLead(l *lead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lead = l
}

// recovering says whether the view is still being rebuilt.
func (l *lead) recovering() bool {
	select {
	case <-l.recovered:
		return false
	default:
		return true
	}
}

// waitRecovered waits until the view is rebuilt.
func (l *lead) waitRecovered(ctx context.Context) error {
	select {
	case <-l.recovered:
		return nil
	case <-ctx.Done():
		return rpc.Errorf(rpc.Timeout, "the new leader is still asking the agents what they run: %w", ctx.Err())
	case <-l.ctx.Done():
		return rpc.Errorf(rpc.NoLeader, "the leader changed; try again")
	}
}

func (l *lead) hasAnswered(nodeID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.answered[nodeID]
	return ok
}

// missing returns the names of nodes whose instances are not known for sure: those that are there and
// have not answered this leader, and those that died with instances on them.
func (s *Server) missing(l *lead) []string {
	var names []string
	for _, m := range s.cluster.Members() {
		silent := reachable(m) && !l.hasAnswered(m.NodeID)
		died := m.State == "dead" && s.view.usage(m.NodeID).Instances > 0
		if silent || died {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}

// collect raises the term at every agent and asks what it runs, until the leadership ends: first
// all that are there, then whoever joins, returns or did not answer. When all live nodes
// have answered, or refused the connection, or the recovery window is over, it asks the other voters
// about those that have not, and closes recovered.
func (s *Server) collect(l *lead) {
	window := time.NewTimer(s.cfg.RecoveryWindow)
	defer window.Stop()
	var g errgroup.Group
	g.SetLimit(collectAtOnce)
	defer func() { _ = g.Wait() }() // asks return nothing: what failed is asked again

	recovered := sync.OnceFunc(func() { close(l.recovered) })
	var copied <-chan struct{} // closed when the other voters have told of those that did not answer
	asked := false             // they are asked once
	defer func() {
		if copied != nil {
			<-copied
		}
	}()
	answered := make(chan struct{}, 1) // a token is enough: the loop asks as many as there is room for
	var (
		changed <-chan struct{}
		todo    []cluster.Member // of those that the last look found, those that were not asked yet
		pending int              // how many it found
	)
	for look := true; ; {
		if look || len(todo) == 0 { // not at each answer: with a thousand members, a look at all is no small thing
			changed, look = s.cluster.Changed(), false
			todo = s.toAsk(l)
			pending = len(todo)
		}
		todo = s.askSome(l, &g, todo, answered)
		var again <-chan time.Time
		if pending > 0 {
			again = time.After(collectAgain)
		} else if !asked {
			copied, asked = s.collectCopies(l), true
		}
		select {
		case <-copied:
			recovered()
			copied = nil
		case <-answered:
		case <-changed:
			look = true
		case <-again:
			look = true
		case <-window.C:
			if !asked {
				copied, asked = s.collectCopies(l), true
			}
		case <-l.ctx.Done():
			return
		}
	}
}

// askSome begins to ask as many members as may be asked at once, and returns those that are left. Each puts a token into
// answered when it is done.
func (s *Server) askSome(l *lead, g *errgroup.Group, todo []cluster.Member, answered chan<- struct{}) (left []cluster.Member) {
	for n, m := range todo {
		if !l.beginAsking(m.NodeID) {
			continue
		}
		ask := func() error {
			s.ask(l, m)
			select {
			case answered <- struct{}{}:
			default:
			}
			return nil
		}
		if !g.TryGo(ask) {
			l.endAsking(m.NodeID)
			return todo[n:]
		}
	}
	return nil
}

// toAsk returns the members that are there and have not answered yet. During recovery a node that
// refuses connections is not waited for; it is asked again later, as it may come back.
func (s *Server) toAsk(l *lead) []cluster.Member {
	recovering := l.recovering()
	l.mu.Lock()
	defer l.mu.Unlock()
	var ask []cluster.Member
	for _, m := range s.cluster.Members() {
		if !reachable(m) {
			// It has to answer anew when it comes back: it may have heard another leader meanwhile.
			delete(l.answered, m.NodeID)
			delete(l.gone, m.NodeID)
			continue
		}
		_, answered := l.answered[m.NodeID]
		_, gone := l.gone[m.NodeID]
		if !answered && (!gone || !recovering) {
			ask = append(ask, m)
		}
	}
	return ask
}

func (l *lead) beginAsking(nodeID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, already := l.asking[nodeID]; already {
		return false
	}
	l.asking[nodeID] = struct{}{}
	return true
}

func (l *lead) endAsking(nodeID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.asking, nodeID)
}

// ask takes one agent's list into the view. After a failure it holds the agent's place for a
// moment, so that it is not asked again at once.
func (s *Server) ask(l *lead, m cluster.Member) {
	defer l.endAsking(m.NodeID)
	ctx, cancel := context.WithTimeout(l.ctx, collectTimeout)
	defer cancel()
	err := s.pullFrom(ctx, s.fenceFor(l, m.NodeID), m)
	if l.ctx.Err() != nil {
		return
	}
	l.noteAnswer(m.NodeID, err)
	if err == nil {
		return
	}
	s.cfg.Log.Debug("an agent did not say what it runs; asking again", "peer", m.Name, "addr", m.RPCAddr, "err", err)
	pause := time.NewTimer(collectAgain)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-l.ctx.Done():
	}
}

func (l *lead) noteAnswer(nodeID string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.answered[nodeID] = struct{}{}
		delete(l.gone, nodeID)
	case refusedConnection(err):
		l.gone[nodeID] = struct{}{}
	}
}

// pullFrom asks one agent for its list, unless the view has it already.
func (s *Server) pullFrom(ctx context.Context, fence *pb.Fence, m cluster.Member) error {
	agent, err := s.agent(m)
	if err != nil {
		return err
	}
	known := s.view.position(m.NodeID)
	stream, err := agent.ListInstances(ctx, &pb.NodeAgentServiceListInstancesRequest{
		Fence: fence, HaveBootId: known.BootID, HaveSeq: known.Seq,
	})
	if err != nil {
		return err
	}
	var at position
	var all []*pb.Instance
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if page.GetUnchanged() {
			s.reporters.copied(m.NodeID, 0)
			return nil
		}
		s.usages.hear(page.GetUsages(), time.Now())
		at = position{page.GetBootId(), page.GetSeq()}
		all = append(all, page.GetInstances()...)
	}
	if at.BootID == "" {
		return errors.New("the agent's list has no boot id")
	}
	s.view.replace(m.NodeID, at, all)
	s.reporters.copied(m.NodeID, 0)
	return nil
}

// refusedConnection says whether nobody listens at the address: the process is not there. gRPC
// passes the cause of an unavailable peer on as text only.
func refusedConnection(err error) bool {
	return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "connection refused")
}

// watchMembers turns changes of membership into events and metadata, as long as this node leads.
func (s *Server) watchMembers(l *lead) {
	first := true
	for {
		changed := s.cluster.Changed()
		for _, m := range s.cluster.Members() {
			before, known := l.seen[m.NodeID]
			l.seen[m.NodeID] = m.State
			if before == m.State {
				continue
			}
			if _, registered := s.fsm.Node(m.NodeID); first && registered && reachable(m) {
				continue // an earlier leader has told of it
			}
			s.memberChanged(l, m, known && reachableState(before), first)
		}
		first = false
		select {
		case <-changed:
		case <-l.ctx.Done():
			return
		}
	}
}

func reachableState(state string) bool { return state == "alive" || state == "suspect" }

func (s *Server) memberChanged(l *lead, m cluster.Member, wasThere, first bool) {
	switch m.State {
	case "alive":
		if !wasThere {
			s.clusterEvent(l.ctx, "node.joined", m.NodeID, m.Name, map[string]string{"rpc_addr": m.RPCAddr})
		}
	case "left":
		if n, ok := s.fsm.Node(m.NodeID); ok && n.GetState() != pb.NodeState_NODE_STATE_LEFT {
			cmd := &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: m.NodeID, State: pb.NodeState_NODE_STATE_LEFT}}}
			if err := s.cluster.Apply(l.ctx, cmd); err != nil {
				s.cfg.Log.Warn("could not note that a node left", "peer", m.Name, "err", err)
			}
		}
		if !first {
			s.clusterEvent(l.ctx, "node.left", m.NodeID, m.Name, nil)
		}
	}
}
