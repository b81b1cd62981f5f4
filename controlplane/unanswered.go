package controlplane

import (
	"context"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// unansweredFor is how long a first start stays reserved that no agent answered, for its caller to ask
	// again: half as long again as a caller waits who says nothing else.
	unansweredFor = 15 * time.Second
	// giveUpTimeout bounds one attempt to tell the agent.
	giveUpTimeout = 5 * time.Second
)

// giveUpUnanswered ends first starts that nobody was answered for and nobody asks for any more, as long as
// this node leads. The agent is told first, so that an order that is still on its way starts nothing.
func (s *Server) giveUpUnanswered(l *lead) {
	for {
		var due <-chan time.Time
		if since, some := l.longestUnanswered(); some {
			due = time.After(time.Until(since.Add(unansweredFor)))
		}
		select {
		case <-due:
			for _, id := range l.unansweredSince(time.Now().Add(-unansweredFor)) {
				s.giveUp(l, id)
			}
		case <-l.moreUnanswered:
		case <-l.ctx.Done():
			return
		}
	}
}

// giveUp ends one start, unless an answer has come since.
func (s *Server) giveUp(l *lead, id string) {
	i, call := s.beginGivingUp(l, id)
	if i == nil {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, giveUpTimeout)
	defer cancel()
	var err error = rpc.Errorf(rpc.CommunicationFailure, "node %s is gone", i.GetNodeName())
	if m, ok := s.member(i.GetNodeId()); ok && reachable(m) {
		_, err = s.orderStop(ctx, l, m, []*pb.Instance{i}, true)
	}
	if err != nil {
		s.cfg.Log.Warn("a start that nobody answered could not be given up; trying again", "instance_id", id, "peer", i.GetNodeName(), "err", err)
	} else {
		s.view.release(id, i.GetNodeId())
		s.cfg.Log.Info("gave up a start that nobody answered", "instance_id", id, "name", i.GetSpec().GetName(), "peer", i.GetNodeName())
	}
	call.failure = &pb.StartFailure{InstanceId: id, ErrorCode: string(rpc.CommunicationFailure), Message: "its first start was not answered, and has just been given up; try again"}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.starts, id)
	if err != nil {
		l.noteUnansweredLocked(id)
	}
	close(call.done)
}

// beginGivingUp keeps retries of the start waiting. It returns nothing where there is nothing to give up any more.
func (s *Server) beginGivingUp(l *lead, id string) (*pb.Instance, *startCall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unanswered, id)
	i := s.view.get(id)
	if i == nil || !provisional(i) || i.GetNodeId() == "" || l.starts[id] != nil {
		return nil, nil
	}
	call := &startCall{done: make(chan struct{}), on: i.GetNodeId()}
	l.starts[id] = call
	return i, call
}

// noteUnansweredLocked notes that a first start got no answer now.
func (l *lead) noteUnansweredLocked(id string) {
	l.unanswered[id] = time.Now()
	select {
	case l.moreUnanswered <- struct{}{}:
	default:
	}
}

func (l *lead) longestUnanswered() (since time.Time, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.unanswered {
		if !some || at.Before(since) {
			since, some = at, true
		}
	}
	return since, some
}

func (l *lead) unansweredSince(since time.Time) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for id, at := range l.unanswered {
		if !at.After(since) {
			all = append(all, id)
		}
	}
	return all
}

// dropReservations takes back what an earlier leadership of this node counted and never heard of again: another
// leader may have settled it since.
func (v *view) dropReservations() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range v.index.All() {
		if !provisional(i) || i.GetNodeId() == "" {
			continue
		}
		v.index.Remove(i.GetInstanceId(), i.GetNodeId())
		if _, moves := v.orphans[i.GetInstanceId()]; moves {
			v.index.Put(waitingFor(i, "its start elsewhere was not answered"))
		} else {
			v.comeBackLocked(i.GetInstanceId())
		}
	}
}

// mayGiveUp says whether a reservation is to be given up that is not answered: that of a first start, and that of a move
// which must not leave two of it running. An orphan is tried again instead.
func (v *view) mayGiveUp(i *pb.Instance) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, moves := v.orphans[i.GetInstanceId()]
	return !moves && (v.behind[i.GetInstanceId()] == nil || fact.StopsOnPartition(i.GetSpec()))
}
