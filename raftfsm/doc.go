// Package raftfsm is the replicated metadata and its snapshot.
//
// It holds which nodes and providers there are, and the cluster's settings: what the Raft log adds
// up to. The command type has no case for an instance, a module, a log or a message, so no sequence
// of commands can put one here; what instances do is fact, and the agents keep it.
//
// A command that is unknown, damaged or refused changes nothing and is answered with an error,
// alike on every node. The package knows nothing of elections, networks or disks.
package raftfsm
