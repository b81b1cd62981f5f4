// Package sim runs whole clusters in one process, on simulated time, and breaks them.
//
// A schedule is a few nodes, a load of starts, stops and drains, and rounds of faults, drawn from one seed. The
// nodes are the real control plane and the real agents, with real journals and real guests, in one bubble of
// testing/synctest, where a minute passes in a fraction of a second. Simulated is what is between them: the network (network.go), Raft
// (raft.go, by Raft's own rules, a step every ten milliseconds), and gossip (cluster.go). The faults are those of the
// storms over real processes (e2e/chaos), and so are the promises and what judges them.
//
// A seed decides the faults, what clients ask, and what becomes of the n-th message of each kind between two nodes. It does
// not decide in which order goroutines run that are due at the same instant, nor the jitter of retries: so a seed that found
// something is likely to find it again, not certain.
//
// Not simulated: what happens below a message, such as torn writes (journal/) or a half-open connection; guests
// that fail; the choice of voters; nodes that leave.
package sim
