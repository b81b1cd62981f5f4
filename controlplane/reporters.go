package controlplane

import "sync"

// reporters knows the newest report stream of each node, so that what is left in an older one can't
// overwrite what a newer one said.
type reporters struct {
	mu     sync.Mutex // guards newest
	newest map[string]int
}

func (r *reporters) begin(nodeID string) (life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest == nil {
		r.newest = map[string]int{}
	}
	r.newest[nodeID]++
	return r.newest[nodeID]
}

func (r *reporters) current(nodeID string, life int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest[nodeID] == life
}
