package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmer makes sure that this node still leads, once for all readers that came while it was finding out for others.
//
// Raft's own VerifyLeader counts an answer to a heartbeat that was sent before it was asked, which after a pause of
// the process can be from before another leader was elected (docs/decisions/006-on-partition.md). So the voters are asked in which term they are: where
// a majority is in no later one, nobody else had been elected when the question was put, and so nothing had been acknowledged
// that this leader does not have.
type confirmer struct {
	mu      sync.Mutex // guards what follows
	waiting *round     // the one that begins next; nil where nobody waits
	running bool
}

// round is one question, for all who came before it was put.
type round struct {
	done chan struct{}
	err  error // read after done
}

// confirm returns when this node has led at a moment after the call.
func (g *Group) confirm(ctx context.Context, s *seat) error {
	c := &s.confirmer
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = &round{done: make(chan struct{})}
	}
	r := c.waiting
	if !c.running {
		c.running = true
		go g.confirmRounds(s) // ends when nobody waits
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Group) confirmRounds(s *seat) {
	c := &s.confirmer
	for {
		c.mu.Lock()
		r := c.waiting
		c.waiting = nil
		c.running = r != nil
		c.mu.Unlock()
		if r == nil {
			return
		}
		r.err = g.askVoters(s)
		close(r.done)
	}
}

// How long a round waits before it asks a voter again that is still busy with the one before, or that can't be reached.
const (
	busyRest = time.Millisecond
	goneRest = 50 * time.Millisecond
)

// askVoters asks until a majority has said that this node's term is the newest, or can't say so in time.
func (g *Group) askVoters(s *seat) error {
	term := s.raft.CurrentTerm()
	if !s.leads() {
		return g.notLeader(s)
	}
	voters := votersOf(s.raft)
	need := len(voters)/2 + 1
	var open []string
	for _, id := range voters {
		if id == g.cfg.NodeID {
			need--
			continue
		}
		open = append(open, id)
	}
	deadline := time.Now().Add(g.timing.ask)
	for need > 0 {
		type reply struct {
			id   string
			they standing
			err  error
		}
		replies := make(chan reply, len(open)) // whoever is late finds room
		for _, id := range open {
			go func() { // ends within the time to ask
				they, err := g.ask(s, reader, id)
				replies <- reply{id, they, err}
			}()
		}
		var again []string
		pause := busyRest
		for range open {
			r := <-replies
			switch {
			case r.err != nil:
				again = append(again, r.id)
				if !errors.Is(r.err, errBusy) {
					pause = goneRest
				}
			case r.they.Term > term:
				return g.notLeader(s)
			default:
				need--
			}
			if need == 0 {
				break
			}
		}
		open = again
		if need > 0 {
			if time.Now().After(deadline) || s.raft.State() != raft.Leader {
				return g.notLeader(s)
			}
			<-time.After(pause)
		}
	}
	if !s.leads() || s.raft.CurrentTerm() != term {
		return g.notLeader(s)
	}
	return nil
}
