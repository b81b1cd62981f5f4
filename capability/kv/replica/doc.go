// Package replica keeps keys and values on several nodes, by a Raft group of its own.
//
// A [Group] is this node's part in it. The group's voters follow those of the cluster's metadata, which say so by a
// ReplicaGroup; nothing else is common to the two, and a value never enters the metadata's log. What is durable is
// Raft's log and its snapshots; the store that answers is rebuilt from them at each start.
//
// A [Store] is one provider's keys, and serves where the group is led from. Elsewhere its calls end with Unavailable and
// a [*NotLeader], which says where to go. Each write carries a [CallID], by which a repetition is known: so a call
// may be sent again, to whoever leads then, until somebody has answered it.
//
// The package knows no gossip, no gRPC and no grants. DESIGN.md says how it holds together.
package replica
