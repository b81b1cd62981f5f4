package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// The timing of Raft, as cluster/ has it.
const (
	pace     = 10 * time.Millisecond // of the simulation: what happens between voters takes that long
	lease    = 500 * time.Millisecond
	election = 500 * time.Millisecond
)

var (
	errNotLeader = errors.New("node is not the leader")
	errDeposed   = errors.New("leadership lost while committing log")
)

// quorum is Raft among the voters, a step each pace. What Raft promises it keeps, by Raft's own rules, and no
// more: a leader that nobody reaches believes in itself for its lease, or for as long as it is frozen; what it had not
// committed may be there later or not; followers lag; and a node that starts again knows what it had voted and logged, but
// not what of that is committed.
type quorum struct {
	net    *network
	random *rand.Rand // used under mu, by one goroutine: so in one order

	mu      sync.Mutex // guards what follows
	voters  []*voter   // in the order of their numbers
	stepped chan struct{}
}

// voter is one node's part.
type voter struct {
	id, addr string

	// What it keeps over a restart.
	term, votedIn uint64
	log           []entry

	// What it does not.
	life     *life // nil while its process is not there
	commit   int   // how many entries it knows to be committed
	applied  int
	leader   string // id, empty while none is known
	leads    bool
	heard    time.Time     // of a leader, or when it voted
	patience time.Duration // how long it waits for a leader
	acked    map[*voter]time.Time
	match    map[*voter]int
}

// entry is one of the log; without data it is a barrier, or what a new leader begins with.
type entry struct {
	term uint64
	data []byte
}

func newQuorum(seed uint64, net *network) *quorum {
	return &quorum{net: net, random: rand.New(rand.NewPCG(seed, 0x7261667)), stepped: make(chan struct{})}
}

// start begins a life of a voter.
func (q *quorum) start(v *voter, l *life) {
	q.mu.Lock()
	defer q.mu.Unlock()
	v.life, v.commit, v.applied, v.leader, v.leads = l, 0, 0, "", false
	q.waitLocked(v)
}

func (q *quorum) end(v *voter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	v.life, v.leads = nil, false
}

// term returns the term that a voter is in: it has voted in no later one.
func (q *quorum) term(v *voter) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(v.term, v.votedIn)
}

func (q *quorum) waitLocked(v *voter) {
	v.heard, v.patience = time.Now(), election+time.Duration(q.random.Int64N(int64(election)))
}

func (q *quorum) majority() int { return len(q.voters)/2 + 1 }

// step is what happens in one pace.
func (q *quorum) step() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, v := range q.awakeLocked() {
		if v.leads {
			q.leadLocked(v)
		} else if time.Since(v.heard) > v.patience {
			q.waitLocked(v)
			q.standLocked(v, false)
		}
	}
	for _, v := range q.awakeLocked() {
		q.applyLocked(v)
	}
	close(q.stepped)
	q.stepped = make(chan struct{})
}

func (q *quorum) awakeLocked() []*voter {
	return slices.DeleteFunc(slices.Clone(q.voters), func(v *voter) bool { return v.life == nil || q.net.isFrozen(v.addr) })
}

// leadLocked has a leader tell the others what it has, and see whether it leads on.
func (q *quorum) leadLocked(v *voter) {
	v.acked[v], v.match[v] = time.Now(), len(v.log)
	for _, p := range q.awakeLocked() {
		if p == v || !q.net.open(v.addr, p.addr) {
			continue
		}
		back := q.net.open(p.addr, v.addr)
		if p.term > v.term {
			if back {
				v.term = p.term
				q.deposeLocked(v)
				return
			}
			continue
		}
		p.term, p.leader, p.leads = v.term, v.id, false
		q.waitLocked(p)
		p.follow(v)
		if back {
			v.acked[p], v.match[p] = time.Now(), len(v.log)
		}
	}
	current := 0
	for _, at := range v.acked {
		if time.Since(at) < lease {
			current++
		}
	}
	if current < q.majority() {
		q.deposeLocked(v)
		return
	}
	matched := make([]int, 0, len(q.voters))
	for _, p := range q.voters {
		matched = append(matched, v.match[p])
	}
	slices.Sort(matched)
	if n := matched[len(matched)-q.majority()]; n > v.commit && v.log[n-1].term == v.term {
		v.commit = n
	}
}

// follow takes over a leader's log, and what of it is committed.
func (v *voter) follow(leader *voter) {
	same := 0
	for same < len(v.log) && same < len(leader.log) && v.log[same].term == leader.log[same].term {
		same++
	}
	if same < len(leader.log) { // what it has beyond that conflicts
		v.log = append(slices.Clone(v.log[:same]), leader.log[same:]...)
	}
	v.commit = max(v.commit, min(leader.commit, len(leader.log)))
}

func (q *quorum) deposeLocked(v *voter) {
	v.leads, v.leader = false, ""
	q.waitLocked(v)
}

// standLocked has a voter stand for election. Nobody votes who hears a leader, unless that one hands over.
func (q *quorum) standLocked(v *voter, handed bool) bool {
	v.leader = ""
	term := v.term + 1
	var votes []*voter
	for _, p := range q.awakeLocked() {
		switch {
		case p != v && !q.net.joined(v.addr, p.addr):
		case p.term >= term || p.votedIn >= term || !v.upToDate(p):
		case p != v && !handed && (p.leads || p.leader != "" && time.Since(p.heard) < election):
		default:
			votes = append(votes, p)
		}
	}
	if len(votes) < q.majority() {
		for _, p := range q.awakeLocked() { // it hears of a later term, if there is one
			if q.net.joined(p.addr, v.addr) {
				v.term = max(v.term, p.term)
			}
		}
		return false
	}
	for _, p := range votes {
		p.term, p.votedIn, p.leads, p.leader = term, term, false, ""
		q.waitLocked(p)
	}
	v.leads, v.leader = true, v.id
	v.acked, v.match = map[*voter]time.Time{}, map[*voter]int{}
	for _, p := range votes {
		v.acked[p] = time.Now()
	}
	v.log = append(slices.Clone(v.log), entry{term: term})
	return true
}

func (v *voter) upToDate(other *voter) bool {
	ours, theirs := v.lastTerm(), other.lastTerm()
	return ours > theirs || ours == theirs && len(v.log) >= len(other.log)
}

func (v *voter) lastTerm() uint64 {
	if len(v.log) == 0 {
		return 0
	}
	return v.log[len(v.log)-1].term
}

func (q *quorum) applyLocked(v *voter) {
	for ; v.applied < v.commit; v.applied++ {
		if e := v.log[v.applied]; e.data != nil {
			if err, refused := v.life.fsm.Apply(&raft.Log{Index: uint64(v.applied + 1), Term: e.term, Data: e.data}).(error); refused {
				v.life.refused[v.applied] = err
			}
		}
	}
}

// handOver makes another voter the leader, if there is one that can be.
func (q *quorum) handOver(from *voter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !from.leads {
		return false
	}
	for _, i := range q.random.Perm(len(q.voters)) {
		to := q.voters[i]
		if to == from || to.life == nil || from.match[to] < len(from.log) || !q.net.open(from.addr, to.addr) {
			continue
		}
		if to.term == from.term && q.standLocked(to, true) {
			return true
		}
	}
	return false
}

// leader returns who leads in the latest term, or nil.
func (q *quorum) leader() *voter {
	q.mu.Lock()
	defer q.mu.Unlock()
	var found *voter
	for _, v := range q.voters {
		if v.leads && v.life != nil && (found == nil || v.term > found.term) {
			found = v
		}
	}
	return found
}

// commit appends to the log of a leader, and returns when its state has it.
func (q *quorum) commit(ctx context.Context, v *voter, l *life, cmd *pb.Command) error {
	var data []byte
	if cmd != nil {
		var err error
		if data, err = proto.Marshal(cmd); err != nil {
			return err
		}
	}
	q.mu.Lock()
	if !v.leads || v.life != l {
		q.mu.Unlock()
		return errNotLeader
	}
	term, at := v.term, len(v.log)
	v.log = append(slices.Clone(v.log), entry{term, data})
	q.mu.Unlock()
	return q.await(ctx, func() (bool, error) {
		switch {
		case v.life != l:
			return true, errNotLeader
		case v.applied > at && v.log[at].term == term:
			return true, l.refused[at]
		case !v.leads || v.term != term:
			return true, errDeposed
		}
		return false, nil
	})
}

// verify returns when most voters have said, since the call, that this one leads.
func (q *quorum) verify(ctx context.Context, v *voter, l *life) error {
	asked := time.Now()
	q.mu.Lock()
	term := v.term
	q.mu.Unlock()
	return q.await(ctx, func() (bool, error) {
		if !v.leads || v.life != l || v.term != term {
			return true, errNotLeader
		}
		since := 0
		for _, at := range v.acked {
			if at.After(asked) {
				since++
			}
		}
		return since >= q.majority(), nil
	})
}

// await looks at each step whether something is so.
func (q *quorum) await(ctx context.Context, done func() (bool, error)) error {
	for {
		q.mu.Lock()
		yes, err := done()
		stepped := q.stepped
		q.mu.Unlock()
		if yes {
			return err
		}
		select {
		case <-stepped:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
