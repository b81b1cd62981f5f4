package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// keepLeadership notices each change of leadership, makes a new leader ready, and keeps Raft's pace.
func (g *Group) keepLeadership(ctx context.Context) {
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	var watched *raft.Raft
	defer func() {
		if watched != nil {
			watched.DeregisterObserver(observer)
		}
	}()
	for {
		changed := g.Changed()
		s := g.current()
		var look <-chan time.Time
		if s != nil {
			if s.raft != watched {
				if watched != nil {
					watched.DeregisterObserver(observer)
				}
				s.raft.RegisterObserver(observer)
				watched = s.raft
			}
			g.keepPace(s)
			g.makeReady(ctx, s)
			look = time.After(g.timing.look) // for what an observation drops when the channel is full
		}
		g.tellLeader()
		select {
		case <-seen:
		case <-look:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// keepPace has Raft beat as a leader does while this node leads, and wait as a follower does otherwise:
// a leader sends a heartbeat each tenth of its heartbeat timeout and has no other use for that timeout,
// while a follower waits a whole one of its own before it stands for election.
func (g *Group) keepPace(s *seat) {
	rc := s.raft.ReloadableConfig()
	rc.HeartbeatTimeout, rc.ElectionTimeout = g.timing.heartbeat, g.timing.election
	if s.raft.State() == raft.Leader {
		rc.HeartbeatTimeout, rc.ElectionTimeout = g.timing.leaderPace, max(g.timing.leaderPace, g.timing.election)
	}
	if rc == s.raft.ReloadableConfig() {
		return
	}
	if err := s.raft.ReloadConfig(rc); err != nil {
		g.cfg.Log.Error("raft keeps its old timeouts", "err", err)
	}
}

// makeReady has a new leader apply all that was written before it.
func (g *Group) makeReady(ctx context.Context, s *seat) {
	term := s.raft.CurrentTerm()
	if s.raft.State() != raft.Leader || s.ready.Load() == term {
		return
	}
	switch err := s.wait(ctx, s.raft.Barrier(enqueueTimeout)); {
	case err != nil:
		g.cfg.Log.DebugContext(ctx, "a leader is not ready yet", "err", err) // it is asked again, if it still leads
	case s.raft.CurrentTerm() == term:
		s.ready.Store(term)
	}
}

// tellLeader wakes those who wait on Changed, if another node leads than before.
func (g *Group) tellLeader() {
	id, self := g.Leader()
	now := leadership{nodeID: id, self: self}
	g.mu.Lock()
	news := now != g.leader
	g.leader = now
	g.mu.Unlock()
	if news {
		g.look()
	}
}

// keepMembers makes this node, while it leads, change the group as planMembers says, and sweep expired keys away.
func (g *Group) keepMembers(ctx context.Context) {
	for {
		changed := g.Changed()
		var look <-chan time.Time
		if s := g.current(); s != nil && s.leads() {
			look = time.After(g.timing.look)
			if g.sweep(ctx, s) {
				continue
			}
			step := planMembers(g.membersView(s))
			switch err := g.takeStep(ctx, s, step); {
			case err == nil && step != (change{}):
				continue
			case err != nil && !errors.Is(err, raft.ErrNotLeader) && ctx.Err() == nil:
				g.cfg.Log.WarnContext(ctx, "the group of replicas could not be changed; trying again", "step", fmt.Sprintf("%+v", step), "err", err)
			}
		}
		select {
		case <-look:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// upToDate is by how many entries a node that is up to date may lag.
const upToDate = 512

// membersView looks at the group. Nobody is asked while it is as it is to be.
func (g *Group) membersView(s *seat) []memberView {
	f := s.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	members := map[string]*memberView{}
	settled := true
	for _, server := range f.Configuration().Servers {
		id := string(server.ID)
		members[id] = &memberView{ID: id, Self: id == g.cfg.NodeID, Member: true, Voter: server.Suffrage == raft.Voter}
		settled = settled && members[id].Voter
	}
	want := g.wantedGroup()
	if (identity{want.GetGeneration(), want.GetFounderId()}) != s.identity || len(want.GetVoters()) == 0 {
		return nil
	}
	for _, v := range want.GetVoters() {
		m := members[v.GetNodeId()]
		if m == nil {
			settled = false
			m = &memberView{ID: v.GetNodeId(), Self: v.GetNodeId() == g.cfg.NodeID}
			members[m.ID] = m
		}
		m.Wanted = true
	}
	if settled && len(want.GetVoters()) == len(members) {
		return nil
	}
	var view []memberView
	for _, m := range members {
		if !m.Self {
			last := s.raft.LastIndex()
			they, err := g.ask(s, keeper, m.ID)
			m.Answers = err == nil
			// One that does not know of the newest voters would refuse to vote for them.
			m.UpToDate = err == nil && they.LastIndex+upToDate >= last && they.LastIndex >= f.Index()
		}
		view = append(view, *m)
	}
	return view
}

func (g *Group) takeStep(ctx context.Context, s *seat, step change) error {
	switch {
	case step.Add != "":
		g.cfg.Log.InfoContext(ctx, "adding a replica", "peer_id", step.Add)
		return s.wait(ctx, s.raft.AddNonvoter(raft.ServerID(step.Add), raft.ServerAddress(g.addrOf(step.Add)), 0, enqueueTimeout))
	case step.Promote != "":
		g.cfg.Log.InfoContext(ctx, "a replica has caught up, and votes from now on", "peer_id", step.Promote)
		return s.wait(ctx, s.raft.AddVoter(raft.ServerID(step.Promote), raft.ServerAddress(g.addrOf(step.Promote)), 0, enqueueTimeout))
	case step.Remove != "":
		g.cfg.Log.InfoContext(ctx, "removing a replica", "peer_id", step.Remove)
		return s.wait(ctx, s.raft.RemoveServer(raft.ServerID(step.Remove), 0, enqueueTimeout))
	case step.HandOver != "":
		g.cfg.Log.InfoContext(ctx, "handing the lead of the replicas over", "peer_id", step.HandOver)
		return s.wait(ctx, s.raft.LeadershipTransferToServer(raft.ServerID(step.HandOver), raft.ServerAddress(g.addrOf(step.HandOver))))
	}
	return nil
}

// sweep removes expired keys, and says whether there may be more.
func (g *Group) sweep(ctx context.Context, s *seat) (more bool) {
	if !s.fsm.due() {
		return false
	}
	c := command{Op: opSweep, Now: time.Now().UnixNano(), Limit: sweepLimit}
	f := s.raft.Apply(c.encode(), enqueueTimeout)
	if err := s.wait(ctx, f); err != nil {
		return false // the next leader does it
	}
	swept, ok := f.Response().(answer)
	return ok && swept.Number == sweepLimit
}

// keepLog takes a snapshot whenever the log has grown enough.
func (g *Group) keepLog(ctx context.Context) {
	for {
		changed := g.Changed()
		var grown <-chan struct{}
		s := g.current()
		if s != nil {
			grown = s.fsm.grown
		}
		select {
		case <-grown:
			if err := s.wait(ctx, s.raft.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && ctx.Err() == nil {
				g.cfg.Log.WarnContext(ctx, "no snapshot of the replicated keys could be taken; the log goes on growing", "err", err)
			}
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
