package agent

import (
	"context"
	"errors"
	"fmt"
)

// WaitWitnessed waits until a voter on another node has all that happened here so far, so that it
// survives this host. It does not wait where no other node votes.
func (a *Agent) WaitWitnessed(ctx context.Context) error {
	seq := a.facts.position()
	for {
		changed := a.voters.Changed()
		others := a.reports.toOthers()
		if !a.othersVote() {
			return nil
		}
		heard := make([]<-chan struct{}, 0, len(others))
		for _, s := range others {
			seen, more := s.progress()
			if seen >= seq {
				return nil
			}
			heard = append(heard, more)
		}
		if err := waitAny(ctx, changed, heard...); err != nil {
			return fmt.Errorf("no voter on another node has heard of it yet: %w", err)
		}
	}
}

// Witnessed says whether a voter on another node has the newest record of an instance of this agent.
func (a *Agent) Witnessed(id string) bool {
	seq := a.facts.seqOf(id)
	for _, s := range a.reports.toOthers() {
		if seen, _ := s.progress(); seen >= seq {
			return true
		}
	}
	return false
}

func (a *Agent) othersVote() bool {
	for _, v := range a.voters.Voters() {
		if v.NodeID != a.cfg.NodeID {
			return true
		}
	}
	return false
}

// toOthers returns the streams to voters on other nodes.
func (r *reports) toOthers() []*reportStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	var others []*reportStream
	for v, s := range r.streams {
		if v.NodeID != r.agent.cfg.NodeID {
			others = append(others, s)
		}
	}
	return others
}

// progress returns what the voter has acknowledged, and a channel that is closed when that changes.
func (s *reportStream) progress() (seen uint64, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen, s.more
}

var errEnded = errors.New("it ended")

// waitAny waits for the first of several channels. There are as many as voters: few.
func waitAny(ctx context.Context, one <-chan struct{}, more ...<-chan struct{}) error {
	either, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnded)
	for _, c := range more {
		go func() {
			select {
			case <-c:
				cancel(errEnded)
			case <-either.Done():
			}
		}()
	}
	select {
	case <-one:
		return nil
	case <-either.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
}
