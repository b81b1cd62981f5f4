// Package provider runs on a node the capability providers that the cluster's metadata names, and finds those of
// other nodes.
//
// The leader tells each node which providers there are, how they are configured, and which nodes run each
// ([Host.Set]); the node remembers that on disk, so that its guests go on without a leader. What it is to run itself it opens
// in the background, and goes on trying: a backend that is away is an error to guests within the
// provider's timeout, and nothing else.
//
// A [Host] is the directory of this node's sessions. A provider that runs here is called directly; one that does not,
// through the agents of the nodes that run it, which check the grant again and never pass a call on. Calls that may be
// repeated are, on another node; of a write that may have been done, the guest is told so.
//
// It decides nothing about grants (room capability), and keeps no data (the engines in the rooms below that).
package provider
