package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// The metadata is small and rarely written: few entries are kept for those who lag.
	trailingLogs      = 256
	snapshotThreshold = 512
	snapshotInterval  = 30 * time.Second
	snapshotsKept     = 2
	// How long one request between voters may take.
	raftIOTimeout = 5 * time.Second
	// How long a change of the log may wait to be taken by the Raft loop.
	enqueueTimeout = 5 * time.Second
	// How long gossip may take to pass on what this node says of itself.
	announceTimeout = time.Second
	// How long to wait for another process that has the log open.
	lockTimeout = 2 * time.Second
)

// idInLog returns the cluster's id as the snapshot or the log has it. A node that was killed right after
// the founding has written it nowhere else, and must not join another cluster before its Raft has
// replayed what it is.
func (c *Cluster) idInLog(log raft.LogStore) (string, error) {
	if id := c.fsm.ClusterID(); id != "" {
		return id, nil
	}
	first, err := log.FirstIndex()
	if err != nil {
		return "", fmt.Errorf("read the log: %w", err)
	}
	last, err := log.LastIndex()
	if err != nil {
		return "", fmt.Errorf("read the log: %w", err)
	}
	for index := max(first, 1); index <= last; index++ {
		entry, cmd := &raft.Log{}, &pb.Command{}
		if err := log.GetLog(index, entry); err != nil {
			return "", fmt.Errorf("read entry %d of the log: %w", index, err)
		}
		if entry.Type != raft.LogCommand || proto.Unmarshal(entry.Data, cmd) != nil {
			continue // applying it says what is wrong with it
		}
		if id := cmd.GetFoundCluster().GetClusterId(); id != "" {
			return id, nil
		}
	}
	return "", nil
}

func (c *Cluster) raftConfig(t timing) *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.cfg.NodeID)
	r.HeartbeatTimeout, r.ElectionTimeout = t.heartbeat, t.election
	r.LeaderLeaseTimeout, r.CommitTimeout = t.lease, t.commit
	r.TrailingLogs, r.SnapshotThreshold, r.SnapshotInterval = trailingLogs, snapshotThreshold, snapshotInterval
	r.ShutdownOnRemove = false // a node that is no voter today may be one tomorrow
	r.Logger = c.raftLogger()
	return r
}

// addresses gives Raft the addresses that gossip knows now, whatever the log remembers.
type addresses struct{ *Cluster }

// ServerAddr returns where a voter serves Raft.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr := a.addrOf(string(id)); addr != "" {
		return raft.ServerAddress(addr), nil
	}
	return "", fmt.Errorf("gossip does not know node %s", id)
}

// removedAfter is how many election timeouts a voter waits for a leader before it believes gossip.
const removedAfter = 4

// Leadership says who leads: by Raft's word on a voter, elsewhere by the newest hint.
type Leadership struct {
	NodeID, Addr string // empty while nobody is known to lead
	Term         uint64
	Self         bool
}

// Leadership returns who leads now, as far as this node knows.
func (c *Cluster) Leadership() Leadership {
	if id, term := c.raftLeader(); id != "" {
		l := Leadership{NodeID: id, Addr: c.addrOf(id), Term: term}
		l.Self = l.NodeID == c.cfg.NodeID && c.raft().State() == raft.Leader
		if l.NodeID != c.cfg.NodeID || l.Self && !c.overtaken(l.Term) {
			return l
		}
	}
	votes := contains(c.configuredVoters(), c.cfg.NodeID)
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[c.hint.NodeID]
	if m == nil || m.State != stateAlive || m.Self {
		return Leadership{}
	}
	// A voter's Raft knows better, unless no leader has spoken to it for longer than an election takes:
	// then it was removed while it was away, and nobody will.
	removed := time.Since(c.raft().LastContact()) > removedAfter*c.cfg.timing().election
	if votes && (!removed || c.hint.Term < c.raft().CurrentTerm()) {
		return Leadership{}
	}
	addr := c.hint.Addr
	if addr == "" {
		addr = m.RPCAddr
	}
	return Leadership{NodeID: c.hint.NodeID, Addr: addr, Term: c.hint.Term}
}

// raftLeader returns who leads by Raft's word, and in which term, at one moment. Read one after the other, they could make an old leader
// the new term's, and gossip would tell everybody. Raft forgets the leader before it takes on a later term.
func (c *Cluster) raftLeader() (id string, term uint64) {
	r := c.raft()
	for {
		before := r.CurrentTerm()
		_, leader := r.LeaderWithID()
		if term = r.CurrentTerm(); term == before {
			return string(leader), term
		}
	}
}

// overtaken says whether a leader of a later term was heard of. While its disk hangs, Raft goes on
// believing that it leads.
func (c *Cluster) overtaken(term uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hint.Term > term
}

// SetLeaderHint tells of a leader that an order came from: agents hear of leaders in orders before
// gossip tells them.
func (c *Cluster) SetLeaderHint(nodeID, addr string, term uint64) {
	c.mu.Lock()
	told := hint{NodeID: nodeID, Addr: addr, Term: term, from: fromOrder}
	newer := told.replaces(c.hint)
	if newer {
		c.hint = told
	}
	c.mu.Unlock()
	if newer {
		c.wake()
	}
}

// followRaft announces each change of leadership and of the voters, and keeps Raft's pace.
func (c *Cluster) followRaft(ctx context.Context) error {
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		c.metrics.observed(o)
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.PeerObservation:
			return true
		}
		return false
	})
	var watched *raft.Raft
	defer func() { watched.DeregisterObserver(observer) }()
	// What an observation drops when the channel is full, and what followers' configurations change
	// without one, is caught by looking now and then.
	look := newMetronome(c.ticking, time.Second)
	defer look.stop()
	var before string
	for {
		if now := c.raft(); now != watched {
			if watched != nil {
				watched.DeregisterObserver(observer)
			}
			now.RegisterObserver(observer)
			watched = now
		}
		c.keepPace()
		now := fmt.Sprint(c.Leadership(), c.configuredVoters())
		if now != before {
			before = now
			c.announce()
		}
		if id := c.fsm.ClusterID(); id != "" {
			c.learnClusterID(id)
		}
		c.keepClusterID()
		select {
		case <-seen:
		case <-c.news:
			before = "" // announce
		case <-c.fsm.Changed():
		case <-c.asked:
		case <-look.C:
			look.next()
		case <-ctx.Done():
			return nil
		}
	}
}

// beat has this node, while it leads others, send heartbeats to all of them at the same instant. Left to itself, Raft sends each
// of them its own at times of its own, and an idle process pays for each time that it wakes.
func (c *Cluster) beat(ctx context.Context) error {
	tick := newMetronome(c.ticking, c.cfg.timing().beat)
	defer tick.stop()
	tick.stop() // until it leads
	for {
		select {
		case <-tick.C:
			c.raft().VerifyLeader() // what comes of it is no matter: to ask is a heartbeat
			tick.next()
		case leads := <-c.beats:
			if tick.stop(); leads {
				tick.next()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// keepPace has Raft beat as a leader does while this node leads, and wait as a follower does otherwise:
// a leader sends a heartbeat each tenth of its heartbeat timeout, unless it was told to before, and has no other use for that
// timeout, while a follower waits a whole one of its own before it stands for election.
func (c *Cluster) keepPace() {
	t := c.cfg.timing()
	leads := c.raft().State() == raft.Leader
	if beats := leads && c.othersVote(); beats != c.beating {
		c.beating = beats
		select {
		case <-c.beats: // what beat has not heard of yet is old now
		default:
		}
		c.beats <- beats
	}
	rc := c.raft().ReloadableConfig()
	rc.HeartbeatTimeout, rc.ElectionTimeout = t.heartbeat, t.election
	if leads {
		rc.HeartbeatTimeout, rc.ElectionTimeout = t.leaderPace, max(t.leaderPace, t.election)
	}
	if rc == c.raft().ReloadableConfig() {
		return
	}
	if err := c.raft().ReloadConfig(rc); err != nil {
		c.cfg.Log.Error("raft keeps its old timeouts", "err", err)
	}
}

// announce tells the others, and those who wait on Changed, what this node is now.
func (c *Cluster) announce() {
	c.wake()
	if err := c.tell(); err != nil {
		c.cfg.Log.Debug("gossip has not passed on yet what this node is now", "err", err)
	}
}

// tell has gossip pass on what this node says of itself.
func (c *Cluster) tell() error {
	c.telling.Lock()
	defer c.telling.Unlock()
	defer c.hurry()()
	id := c.ClusterID() // it never changes, so what is told holds at least this
	if err := c.gossip.UpdateNode(announceTimeout); err != nil {
		return err
	}
	c.toldID = id
	return nil
}

// tellClusterID has gossip say where this node belongs, if it does not yet.
func (c *Cluster) tellClusterID() error {
	c.telling.Lock()
	told := c.toldID
	c.telling.Unlock()
	if told == c.ClusterID() {
		return nil
	}
	return c.tell()
}

// configuredVoters returns the ids of the voters in this node's Raft configuration.
func (c *Cluster) configuredVoters() []string {
	f := c.raft().GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var ids []string
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

func (c *Cluster) apply(ctx context.Context, cmd *pb.Command) error {
	raw, err := encode(cmd)
	if err != nil {
		return err
	}
	began := time.Now()
	f := c.raft().Apply(raw, enqueueTimeout)
	if err := wait(ctx, f); err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	c.metrics.apply.Observe(time.Since(began).Seconds())
	if refused, ok := f.Response().(error); ok {
		return refused
	}
	return nil
}

func encode(cmd *pb.Command) ([]byte, error) {
	raw, err := proto.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	return raw, nil
}

// Barrier returns when this leader's state holds all that earlier leaders wrote.
func (c *Cluster) Barrier(ctx context.Context) error {
	return wait(ctx, c.raft().Barrier(enqueueTimeout))
}

// Term returns the Raft term that this node is in: it has voted in no later one.
func (c *Cluster) Term() uint64 { return c.raft().CurrentTerm() }

// VerifyLeader asks a majority whether this node still leads.
func (c *Cluster) VerifyLeader(ctx context.Context) error { return wait(ctx, c.raft().VerifyLeader()) }

// TransferLeadership hands leadership to another voter.
func (c *Cluster) TransferLeadership(ctx context.Context) error {
	return wait(ctx, c.raft().LeadershipTransfer())
}

// wait waits for Raft, but not longer than ctx.
func wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1) // the goroutine ends with the future, which Raft always completes
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Cluster) raftLogger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Info, DisableTime: true, Output: lineLog{log: c.cfg.Log, part: "raft"}})
}
