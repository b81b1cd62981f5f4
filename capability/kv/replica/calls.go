package replica

// maxCalls is how many answers are remembered: those of half a minute of heavy writing, which is several times as long as
// a caller goes on repeating.
const maxCalls = 1 << 16

// call is one write that was done.
type call struct {
	ID     CallID
	Print  uint32
	Answer answer
}

// calls is the answers of the newest writes. It is a part of the state that all replicas have alike.
type calls struct {
	most int
	ring []call // as they were done; once it is full, the oldest is at next
	next int
	at   map[CallID]int
}

func newCalls(most int) *calls { return &calls{most: most, at: map[CallID]int{}} }

// find returns what a call's write was answered.
func (c *calls) find(id CallID) (call, bool) {
	n, ok := c.at[id]
	if !ok {
		return call{}, false
	}
	return c.ring[n], true
}

// add remembers a call that is not remembered yet.
func (c *calls) add(done call) {
	if done.ID == (CallID{}) {
		return
	}
	if len(c.ring) < c.most {
		c.at[done.ID] = len(c.ring)
		c.ring = append(c.ring, done)
		return
	}
	delete(c.at, c.ring[c.next].ID)
	c.ring[c.next] = done
	c.at[done.ID] = c.next
	c.next = (c.next + 1) % c.most
}

// all returns them, the oldest first.
func (c *calls) all() []call {
	all := make([]call, 0, len(c.ring))
	all = append(all, c.ring[c.next:]...)
	return append(all, c.ring[:c.next]...)
}
