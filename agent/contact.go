package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Instances that must never run twice (on_partition stop) run only while the node is in contact with the
// leader: as long after it asked as the leader granted. docs/decisions/006-on-partition.md says why no other copy can
// run within that time.

var (
	// errNoContact is why a run ends when contact has run out.
	errNoContact = errors.New("no leader was heard in time, and it must not run twice (on_partition stop)")
	// errHeld is why a run ends whose instance is about to be started elsewhere.
	errHeld = errors.New("it is about to be started elsewhere, and must not run twice (on_partition stop)")
)

// contact is how long the leader's last grant holds, and who depends on it.
type contact struct {
	wake chan struct{} // has a token when somebody new wants contact

	mu sync.Mutex // guards what follows

	until   time.Time // by the monotonic clock of this host
	lapses  uint64    // how often it has run out
	expiry  *time.Timer
	runs    map[*instance]*run // what runs thanks to it
	waiting map[string]*word   // by instance id: what waits for the leader's word
}

// run is one run of a guest that depends on contact.
type run struct {
	end  context.CancelCauseFunc
	done chan struct{} // closed once it has ended
}

// word is what an instance waits for.
type word struct {
	generation uint64
	since      time.Time     // only what was asked for later counts
	given      chan struct{} // closed with the leader's word
	lapses     uint64        // how often contact had run out then
}

func newContact() *contact {
	c := &contact{wake: make(chan struct{}, 1), runs: map[*instance]*run{}, waiting: map[string]*word{}}
	c.expiry = time.AfterFunc(math.MaxInt64, c.expire) // until the first grant
	return c
}

// ordered notes that the leader's order is its word on an instance.
func (c *contact) ordered(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.heard = c.lapses
}

// mayRunLocked says whether an instance needs no further word of the leader: contact holds, and has not run out since
// the last, whether it ran then or not.
func (c *contact) mayRunLocked(i *instance) bool {
	c.lapseLocked()
	return !i.held && i.heard == c.lapses && time.Now().Before(c.until)
}

// await waits until an instance that must not run twice may run, if it is one; false if it is to end before.
func (c *contact) await(i *instance) bool {
	if !fact.StopsOnPartition(i.rec.Load().GetSpec()) {
		return true
	}
	c.mu.Lock()
	if c.mayRunLocked(i) {
		c.mu.Unlock()
		return true
	}
	w := &word{generation: i.generation, since: time.Now(), given: make(chan struct{})}
	c.waiting[i.id] = w
	c.mu.Unlock()
	c.wanted()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.waiting[i.id] == w {
			delete(c.waiting, i.id)
		}
	}()
	select {
	case <-w.given:
		c.mu.Lock()
		i.held, i.heard = false, w.lapses
		c.mu.Unlock()
		return i.ctx.Err() == nil
	case <-i.ctx.Done():
		return false
	}
}

// during returns the context of a run, which ends when the instance is to end or, if it must not run
// twice, with contact. The function it returns is to be called at the end of the run.
func (c *contact) during(i *instance) (context.Context, func()) {
	if !fact.StopsOnPartition(i.rec.Load().GetSpec()) {
		return i.ctx, func() {}
	}
	ctx, end := context.WithCancelCause(i.ctx)
	r := &run{end: end, done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs[i] = r
	c.wanted() // whoever renews contact may have looked just between the leader's word and this run
	switch {
	case i.held: // since it was awaited
		end(errHeld)
	case !c.mayRunLocked(i):
		end(errNoContact)
	}
	return ctx, func() {
		end(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.runs, i)
		close(r.done)
	}
}

// hold ends the run of an instance, and has the next one wait for the leader's word. It waits until it has ended.
func (c *contact) hold(ctx context.Context, i *instance) error {
	c.mu.Lock()
	i.held = true
	r := c.runs[i]
	if r != nil {
		r.end(errHeld)
	}
	if w := c.waiting[i.id]; w != nil {
		w.since = time.Now() // the leader may have said yes just before
	}
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// granted takes what the leader answered a request that was sent at that time.
func (c *contact) granted(sent time.Time, validFor time.Duration, cleared []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lapseLocked() // the timer may be late, as in a process that was frozen
	if until := sent.Add(validFor); until.After(c.until) {
		c.until = until
	}
	left := time.Until(c.until)
	if left <= 0 { // the answer came too late to be worth anything
		return
	}
	c.expiry.Reset(left)
	for _, id := range cleared {
		if w := c.waiting[id]; w != nil && !w.since.After(sent) {
			w.lapses = c.lapses
			close(w.given)
			delete(c.waiting, id)
		}
	}
}

// expire ends what runs thanks to contact, once that has run out.
func (c *contact) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := time.Until(c.until); left > 0 {
		c.expiry.Reset(left)
		return
	}
	c.lapseLocked()
}

// lapseLocked ends what runs thanks to contact, if that has run out since it was granted last.
func (c *contact) lapseLocked() {
	if c.until.IsZero() || time.Now().Before(c.until) {
		return
	}
	c.until = time.Time{}
	c.lapses++
	for _, r := range c.runs {
		r.end(errNoContact)
	}
}

// wants says whether anything here depends on contact, and what waits for the leader's word, by generation.
func (c *contact) wants() (waiting map[string]uint64, some bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting = make(map[string]uint64, len(c.waiting))
	for id, w := range c.waiting {
		waiting[id] = w.generation
	}
	return waiting, len(c.runs)+len(waiting) > 0
}

func (c *contact) wanted() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ContactWanted has a token when an instance has begun to want contact with the leader.
func (a *Agent) ContactWanted() <-chan struct{} { return a.contact.wake }

// ContactRequest returns what to ask the leader for, or nil where nothing here depends on contact with it.
func (a *Agent) ContactRequest() *pb.RenewContactRequest {
	waiting, wants := a.contact.wants()
	if !wants {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return &pb.RenewContactRequest{NodeId: a.cfg.NodeID, NodeEpoch: a.epoch, Waiting: waiting}
}

// Contact takes the leader's answer to a request that was sent at that time. An error says why it does not count.
func (a *Agent) Contact(sent time.Time, resp *pb.RenewContactResponse) error {
	a.mu.Lock()
	newer, err := a.fenceLocked(resp.GetFence())
	if err == nil {
		for _, id := range resp.GetSuperseded() {
			if i := a.live[id]; i != nil {
				a.stopLocked(id, true, errStopped)
			}
		}
	}
	a.mu.Unlock()
	a.tellLeader(newer)
	if err != nil {
		return err
	}
	if resp.GetValidFor().AsDuration() <= 0 {
		return fmt.Errorf("the leader, node %s, grants no contact yet", resp.GetFence().GetLeaderId())
	}
	a.contact.granted(sent, resp.GetValidFor().AsDuration(), resp.GetCleared())
	return nil
}
