package controlplane

import (
	"context"
	"slices"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Orphans live in the voters' copies only, as no agent has them. So the voters keep them alike with the leader's, and
// forget those that are lost for good as agents forget what has ended.
const (
	// orphansEvery is how often a voter compares its orphans with the leader's. One that the leader has placed
	// meanwhile is dropped on hearing of it in any case; this is for what was stopped and forgotten while this voter was away.
	orphansEvery = 10 * time.Second
	// For how long, and how many, lost instances stay known: as long as ended ones do (agent/config.go).
	keepLost = time.Hour
	maxLost  = 1000
)

// keepOrphans keeps this node's orphans as the leader has them, while it has a vote.
func (s *Server) keepOrphans(ctx context.Context) {
	tick := time.NewTicker(orphansEvery)
	defer tick.Stop()
	doubted := map[string]struct{}{} // ids of those that the leader did not have when it was asked last
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.view.forgetLost(time.Now())
		theirs, err := s.leadersOrphans(ctx)
		if err != nil {
			s.cfg.Log.DebugContext(ctx, "the leader did not say which instances no node has", "err", err)
		}
		if err != nil || !theirs.settled {
			clear(doubted)
			continue
		}
		doubted = s.view.doubtOrphans(theirs.instances, doubted)
	}
}

// leadersOrphans asks the leader for its orphans. They are not settled where this node leads, or does not vote.
func (s *Server) leadersOrphans(ctx context.Context) (unownedCopy, error) {
	leader := s.cluster.Leadership()
	m, known := s.member(leader.NodeID)
	if leader.Self || !known || !slices.Contains(s.cluster.Voters(), s.cfg.NodeID) {
		return unownedCopy{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, copiesTimeout)
	defer cancel()
	return s.pullCopies(ctx, m, nil)
}

// doubtOrphans drops the orphans that the leader does not have, if it had not when it was asked before either: this node may
// hear of a loss a moment before the leader acts on it. It returns those to be doubted the next time.
func (v *view) doubtOrphans(theirs []*pb.Instance, before map[string]struct{}) (doubted map[string]struct{}) {
	has := map[string]struct{}{}
	for _, i := range theirs {
		has[i.GetInstanceId()] = struct{}{}
	}
	doubted = map[string]struct{}{}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range v.index.OnNode("") {
		id := i.GetInstanceId()
		if _, ok := has[id]; ok {
			continue
		}
		if _, again := before[id]; again {
			v.index.Remove(id, "")
			delete(v.orphans, id)
			v.comeBackLocked(id)
			continue
		}
		doubted[id] = struct{}{}
	}
	return doubted
}

// forgetLost forgets lost instances that are too old, or too many, the oldest first.
func (v *view) forgetLost(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	lost := slices.DeleteFunc(v.index.OnNode(""), func(i *pb.Instance) bool { return fact.Live(i.GetStatus()) })
	slices.SortFunc(lost, func(a, b *pb.Instance) int {
		return a.GetFinishedAt().AsTime().Compare(b.GetFinishedAt().AsTime())
	})
	for n, i := range lost {
		if now.Sub(i.GetFinishedAt().AsTime()) > keepLost || len(lost)-n > maxLost {
			v.index.Remove(i.GetInstanceId(), "")
		}
	}
}
