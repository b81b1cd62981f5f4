package controlplane

import (
	"sync"
	"time"
)

// reportsEvery is a little more than the longest silence of an agent that is well: its heartbeat comes
// every 5 s. A host that lost its power leaves its streams open.
const reportsEvery = 6 * time.Second

// reporters knows the report streams of each node: which is the newest, so that what is left in an
// older one can't overwrite what a newer one said, and how many are open.
type reporters struct {
	mu     sync.Mutex // guards all below
	newest map[string]int
	open   map[string]int
	heard  map[string]time.Time // when its newest message came
	told   map[string]time.Time // when the voter had heard it whose copy of it this node has
}

// begin counts a new stream of a node. Its end is to be told to end.
func (r *reporters) begin(nodeID string) (life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest == nil {
		r.newest, r.open, r.heard = map[string]int{}, map[string]int{}, map[string]time.Time{}
	}
	r.newest[nodeID]++
	r.open[nodeID]++
	r.heard[nodeID] = time.Now()
	return r.newest[nodeID]
}

func (r *reporters) end(nodeID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[nodeID]--; r.open[nodeID] == 0 {
		delete(r.open, nodeID)
	}
}

// hear notes a message, and says whether it came on the newest stream.
func (r *reporters) hear(nodeID string, life int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest[nodeID] != life {
		return false
	}
	r.heard[nodeID] = time.Now()
	return true
}

// copied notes that a voter's copy of a node was taken over, which that voter had from it so long ago.
func (r *reporters) copied(nodeID string, silentFor time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]time.Time{}
	}
	r.told[nodeID] = time.Now().Add(-silentFor)
}

// silence returns for how long nothing has come from a node, to here or to the voter whose copy this node
// took over, if anything ever did.
func (r *reporters) silence(nodeID string) (_ time.Duration, ever bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	heard, ever := r.heard[nodeID]
	if told, also := r.told[nodeID]; also && told.After(heard) {
		heard, ever = told, true
	}
	return time.Since(heard), ever
}

// count returns how many nodes have a stream open.
func (r *reporters) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// reporting says whether a stream of the node is open and has not been silent for too long.
func (r *reporters) reporting(nodeID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[nodeID] > 0 && time.Since(r.heard[nodeID]) < reportsEvery
}
