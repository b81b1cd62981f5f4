// Package mirror copies who is there and which providers there are to an etcd of the user's.
//
// The copy goes one way. Under /wasmatrix/CLUSTER_ID/ there is a key nodes/NODE_ID for each node that is there and a key
// providers/ID for each provider, with JSON that holds no secret, and the mirror writes no other key. It never reads a value: it
// looks at which keys there are and at which revisions, and writes again what is not as it wrote it last. So a wiped etcd is full
// again after one round, and one that is away, hangs or lies spoils nothing but the copy.
//
// Only the leader writes. The keys of nodes hang on a lease, so that they vanish if the cluster does, and the lease is the
// fence as well: its number is the Raft term ([leaseOf]). A new leader puts all nodes under its own lease before anything
// else, and each write has etcd check that no node hangs on a later one. What a deposed leader has under way is refused by
// etcd itself, also between quorums, whose terms never overlap.
//
// The package decides nothing about the cluster, and nothing waits for it.
package mirror
