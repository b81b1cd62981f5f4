package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
)

// Cluster is this node's part in the cluster. New makes one, Start opens it, Run keeps it going.
type Cluster struct {
	cfg        Config
	fsm        *raftfsm.FSM
	openStream func() StreamLayer
	peers      *peerFile
	metrics    *metrics

	gossip *memberlist.Memberlist // set by Start
	seat   atomic.Pointer[seat]   // set by Start
	keptID string                 // the cluster's id as it is on disk; of followRaft alone
	fatal  chan error             // a refusal that ends this node
	news   chan struct{}          // a token: there is something to announce
	asked  chan struct{}          // followRaft takes from it: that is its answer

	ticking time.Time // when gossip began to tick; set by Start
	beats   chan bool // whether this node is to send heartbeats, once that has changed: from followRaft to beat
	beating bool      // what followRaft said last; of it alone

	switching sync.Mutex // held while the seat changes; guards closed
	closed    bool

	telling sync.Mutex // held around gossip.UpdateNode, which is not safe to call twice at once; guards toldID
	toldID  string     // the cluster's id as gossip passes it on

	mu sync.Mutex // guards all below

	members   map[string]*member // by node id
	clusterID string
	newest    Quorum // that was heard of
	hint      hint   // the newest leader that gossip or an order told of
	refusal   error  // the last reason for which a node was kept apart from this one
	leaving   bool
	opened    time.Time // when Start was called
	founded   bool      // this node has, or has had, Raft state or a cluster id
	changed   chan struct{}
}

// hint is a leader heard of. Addr is set where an order told of it.
type hint struct {
	NodeID, Addr string
	Term         uint64
	from         source
}

// source is who told of a leader. A term has one leader, so where two are told of one of them is wrong, and it is the one that was
// heard of at third hand.
type source int

const (
	fromOthers source = iota
	fromItself        // in gossip
	fromOrder         // which it gave
)

// replaces says whether a hint is to be believed rather than the one that is known.
func (h hint) replaces(known hint) bool {
	return h.Term > known.Term || h.Term == known.Term && h.NodeID != known.NodeID && h.from > known.from
}

// New returns a cluster part that has opened nothing but its own small files. openStream returns a new
// stream for Raft, and closes the one before.
func New(cfg Config, fsm *raftfsm.FSM, openStream func() StreamLayer) (*Cluster, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for i, seed := range cfg.Join {
		if _, _, err := net.SplitHostPort(seed); err != nil {
			cfg.Join[i] = net.JoinHostPort(seed, strconv.Itoa(cfg.GossipPort))
		}
	}
	peers, err := openPeerFile(filepath.Join(cfg.DataDir, "peers.json"))
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg: cfg, fsm: fsm, openStream: openStream, peers: peers, metrics: newMetrics(),
		fatal:   make(chan error, 1),
		news:    make(chan struct{}, 1),
		asked:   make(chan struct{}),
		beats:   make(chan bool, 1),
		members: map[string]*member{},
		changed: make(chan struct{}),
	}
	raw, err := os.ReadFile(c.clusterIDPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the cluster's id: %w", err)
	}
	c.clusterID = strings.TrimSpace(string(raw))
	c.keptID = c.clusterID
	return c, c.registerMetrics()
}

// Start opens the log and the gossip. Founding and joining go on in Run. Other methods may be called
// once it has returned.
func (c *Cluster) Start(context.Context) error {
	c.mu.Lock()
	c.opened = time.Now()
	c.mu.Unlock()
	quorum, err := readQuorum(c.cfg.DataDir)
	if err == nil {
		err = c.sit(quorum)
	}
	if err != nil {
		return err
	}
	c.gossip, err = c.startGossip()
	c.ticking = time.Now()
	return err
}

// Run keeps this node in the cluster until ctx ends: it joins and rejoins, founds where that is its
// part, and while it leads chooses the voters. It returns early where the cluster refuses the node.
func (c *Cluster) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.joinForever(ctx) })
	g.Go(func() error { return c.found(ctx) })
	g.Go(func() error { return c.followRaft(ctx) })
	g.Go(func() error { return c.beat(ctx) })
	g.Go(func() error { return c.keepVoters(ctx) })
	g.Go(func() error { return c.followQuorum(ctx) })
	g.Go(func() error {
		select {
		case err := <-c.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// Leave takes this node out of the cluster in order: leadership first, which takes milliseconds,
// then the vote, then gossip. What does not work out within ctx is left to the others to notice.
func (c *Cluster) Leave(ctx context.Context) error {
	var errs []error
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	if c.Leadership().Self {
		if err := c.handLeadershipOver(ctx); err != nil {
			errs = append(errs, fmt.Errorf("hand leadership over: %w", err))
		}
	}
	if err := c.tell(); err != nil {
		errs = append(errs, fmt.Errorf("say goodbye: %w", err))
	}
	c.handVoteOver(ctx)
	enough := c.hurry()
	err := c.gossip.Leave(leaveTimeout)
	enough()
	if err != nil {
		errs = append(errs, fmt.Errorf("leave gossip: %w", err))
	}
	return errors.Join(errs...)
}

// handLeadershipOver makes another voter the leader. Where this node is the only voter, another node
// becomes one first: fewer than three nodes have one voter, and it must not be the one that goes.
func (c *Cluster) handLeadershipOver(ctx context.Context) error {
	if !c.othersVote() {
		heir := c.heir()
		if heir == "" {
			return nil // nobody is left behind
		}
		if err := c.takeStep(voterChange{Promote: heir}); err != nil {
			return err
		}
		// Raft offers leadership at once, also to a voter that has nothing of the log yet and can't take
		// it. What is committed now is committed by both.
		if err := c.Barrier(ctx); err != nil {
			return err
		}
	}
	return c.TransferLeadership(ctx)
}

// heir returns a node that can take the only vote, or nothing.
func (c *Cluster) heir() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, m := range c.members {
		if !m.Self && m.State == stateAlive && !m.meta.GetLeaving() {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return slices.Min(ids)
}

const (
	// How long gossip may take to pass a goodbye on.
	leaveTimeout = 2 * time.Second
	// How long a leaving voter waits for the leader to take its vote away.
	voteTimeout = 3 * time.Second
)

// handVoteOver waits until the leader has taken this node, which is leaving, out of the quorum.
func (c *Cluster) handVoteOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, voteTimeout)
	defer cancel()
	for {
		changed := c.Changed()
		if ids := c.configuredVoters(); len(ids) < 2 || !contains(ids, c.cfg.NodeID) {
			return
		}
		poll := time.NewTimer(50 * time.Millisecond) // a removed voter is not always told
		select {
		case <-changed:
		case <-poll.C:
		case <-ctx.Done():
			poll.Stop()
			return
		}
		poll.Stop()
	}
}

// Close closes gossip and log, once Run has returned. A second call does nothing.
func (c *Cluster) Close() error {
	var errs []error
	if c.gossip != nil {
		errs = append(errs, c.gossip.Shutdown())
	}
	c.switching.Lock()
	defer c.switching.Unlock()
	c.closed = true
	if s := c.seat.Load(); s != nil {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Answer returns nil once the loop that follows Raft and the lock that all of gossip takes are free. It waits for no disk
// and no other node.
func (c *Cluster) Answer(ctx context.Context) error {
	select {
	case c.asked <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("ask the loop that follows raft: %w", ctx.Err())
	}
	c.gossip.NumMembers()
	return nil
}

// ClusterID returns the cluster's id, or nothing before this node knows it.
func (c *Cluster) ClusterID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clusterID
}

// Changed returns a channel that is closed at the next change of members, leadership or voters.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *Cluster) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// refused notes why a node is kept apart from this one.
func (c *Cluster) refused(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = err
}

func (c *Cluster) aliveLocked() int {
	n := 0
	for _, m := range c.members {
		if m.State == stateAlive {
			n++
		}
	}
	return n
}

func (c *Cluster) clusterIDPath() string { return filepath.Join(c.cfg.DataDir, "cluster-id") }

// learnClusterID remembers the cluster's id, which never changes once it is known.
func (c *Cluster) learnClusterID(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clusterID != "" {
		return
	}
	c.clusterID = id
	select {
	case c.news <- struct{}{}:
	default: // a token is there already
	}
}

// keepClusterID writes the cluster's id down, so that after a restart this node refuses others
// before its log has told it where it belongs.
func (c *Cluster) keepClusterID() {
	id := c.ClusterID()
	if id == "" || id == c.keptID {
		return
	}
	if err := writeFile(c.clusterIDPath(), []byte(id+"\n")); err != nil {
		c.cfg.Log.Error("the cluster's id could not be kept", "err", err)
		return
	}
	c.keptID = id
}

// Apply has the log take a command and this node's state hold it; only on the leader. The error of
// the state itself comes back as it is.
func (c *Cluster) Apply(ctx context.Context, cmd *pb.Command) error { return c.apply(ctx, cmd) }
