package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// A connection whose messages don't get through breaks after a time between these: what unacknowledged data
	// and keepalive make of it (rpc/client.go).
	breaksAfter, breaksWithin = 5 * time.Second, 15 * time.Second
	// connectTimeout is how long a new connection is tried.
	connectTimeout = 2 * time.Second
)

// network carries messages between nodes. What becomes of a message is a function of the seed, of who sends it to
// whom in which call, and of how many of those there were before; so it is the same in each run of a seed as long as the nodes
// do the same.
//
// A message is never lost alone, as on TCP: it is late, as long as its way is cut, or its connection breaks, and then
// nobody knows whether it came.
type network struct {
	seed uint64

	mu      sync.Mutex // guards what follows
	nodes   map[string]*life
	cut     map[way]bool
	frozen  map[string]bool
	rough   bool // messages may be late, and connections break
	wires   map[way]*wire
	sent    map[string]uint64
	changed chan struct{} // closed and replaced when a way may have opened or closed
	closed  bool
}

// way is one direction between two nodes; of a wire, from who calls to who serves.
type way struct{ from, to string }

// wire is one connection.
type wire struct {
	way

	net         *network
	here, there *life         // whom it joins; here is nil for a client
	broken      chan struct{} // closed when nothing passes any more
	stuck       bool          // under net.mu: a way is cut, and the end of patience is set
}

func newNetwork(seed uint64) *network {
	return &network{
		seed: seed, nodes: map[string]*life{}, cut: map[way]bool{}, frozen: map[string]bool{}, wires: map[way]*wire{},
		sent: map[string]uint64{}, changed: make(chan struct{}),
	}
}

// chance returns the source of what becomes of the next message of this kind.
func (n *network) chance(w way, kind string) *rand.Rand {
	key := w.from + ">" + w.to + kind
	n.mu.Lock()
	n.sent[key]++
	count := n.sent[key]
	n.mu.Unlock()
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(key)) // it never fails
	return rand.New(rand.NewPCG(n.seed, hash.Sum64()+count*0x9e3779b97f4a7c15))
}

// fate is what becomes of one message and of the answer to it.
type fate struct {
	there, back time.Duration
	// The connection breaks before the message comes, or before the answer does.
	losesRequest, losesAnswer bool
}

func (n *network) fate(w way, kind string) fate {
	c := n.chance(w, kind)
	f := fate{there: n.delay(c), back: n.delay(c)}
	if n.isRough() {
		f.losesRequest, f.losesAnswer = c.IntN(300) == 0, c.IntN(150) == 0
	}
	return f
}

// delay is mostly that of a local network, and rarely that of a busy one.
func (n *network) delay(c *rand.Rand) time.Duration {
	least, share := 100*time.Microsecond, c.IntN(100)
	switch {
	case share >= 95 && n.isRough():
		return least + time.Duration(c.Int64N(int64(400*time.Millisecond)))
	case share >= 70 && n.isRough():
		return least + time.Duration(c.Int64N(int64(20*time.Millisecond)))
	}
	return least + time.Duration(c.Int64N(int64(time.Millisecond)))
}

func (n *network) isRough() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rough
}

func (n *network) setRough(rough bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rough = rough
}

// change changes which ways are open.
func (n *network) change(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
	close(n.changed)
	n.changed = make(chan struct{})
	for _, w := range n.wires {
		n.watchLocked(w)
	}
}

// watchLocked has a wire break in the end that has a way cut, and at once one whose other end is not there any more.
func (n *network) watchLocked(w *wire) {
	open := n.openLocked(w.from, w.to) && n.openLocked(w.to, w.from)
	switch {
	case open && (!n.livesLocked(w.here) || !n.livesLocked(w.there)):
		n.breakLocked(w)
	case open:
		w.stuck = false
	case !w.stuck:
		w.stuck = true
		c := rand.New(rand.NewPCG(n.seed, n.sent[w.from+w.to]))
		n.sent[w.from+w.to]++
		time.AfterFunc(breaksAfter+time.Duration(c.Int64N(int64(breaksWithin-breaksAfter))), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if w.stuck {
				n.breakLocked(w)
			}
		})
	}
}

// openLocked says whether what one node sends reaches the other now. What does not exist can't be told from here.
func (n *network) openLocked(from, to string) bool {
	return !n.cut[way{from, to}] && !n.frozen[from] && !n.frozen[to]
}

func (n *network) open(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.openLocked(from, to)
}

// joined says whether two nodes reach each other.
func (n *network) joined(a, b string) bool { return n.open(a, b) && n.open(b, a) }

// livesLocked says whether this life of a node is its present one. Who has ended says nothing more.
func (n *network) livesLocked(l *life) bool { return l == nil || n.nodes[l.addr] == l }

func (n *network) lives(l *life) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.livesLocked(l)
}

func (n *network) isFrozen(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen[node]
}

func (n *network) breakLocked(w *wire) {
	if n.wires[w.way] == w {
		delete(n.wires, w.way)
		close(w.broken)
	}
}

func (w *wire) sever() {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	w.net.breakLocked(w)
}

var errBroken = status.Error(codes.Unavailable, "error reading from server: the connection broke")

// connect returns the wire from a node, or a client, to another.
func (n *network) connect(ctx context.Context, here *life, w way) (*wire, error) {
	patience := time.NewTimer(connectTimeout)
	defer patience.Stop()
	for {
		n.mu.Lock()
		there, known, changed := n.nodes[w.to], n.wires[w], n.changed
		if n.closed || !n.livesLocked(here) {
			n.mu.Unlock()
			return nil, status.Error(codes.Unavailable, "this node is not there any more")
		}
		if known != nil && known.here == here {
			n.mu.Unlock()
			return known, nil
		}
		if n.openLocked(w.from, w.to) && n.openLocked(w.to, w.from) {
			if there == nil {
				n.mu.Unlock()
				return nil, status.Errorf(codes.Unavailable, "connect to %s: connection refused", w.to)
			}
			if known != nil { // of an earlier life
				n.breakLocked(known)
			}
			fresh := &wire{way: w, net: n, here: here, there: there, broken: make(chan struct{})}
			n.wires[w] = fresh
			n.mu.Unlock()
			return fresh, nil
		}
		n.mu.Unlock()
		select {
		case <-changed:
		case <-patience.C:
			return nil, status.Errorf(codes.Unavailable, "connect to %s: i/o timeout", w.to)
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s: %w", w.to, context.Cause(ctx))
		}
	}
}

// carry takes a message from one end of the wire to the other: it returns when it is there, or with errBroken.
func (w *wire) carry(from, to string, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.broken:
		return errBroken
	}
	for {
		w.net.mu.Lock()
		open, changed := w.net.openLocked(from, to), w.net.changed
		w.net.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-w.broken:
			return errBroken
		}
	}
}

// close ends all that is under way.
func (n *network) close() {
	n.change(func() {
		n.closed = true
		for _, w := range n.wires {
			n.breakLocked(w)
		}
	})
}

// statusOf is an error as it travels.
func statusOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Convert(err).Err()
}
