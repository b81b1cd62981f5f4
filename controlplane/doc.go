// Package controlplane is what the leader does: it places, routes, recovers and relocates.
//
// Every node runs a [Server]. On voters it gathers the reports of all agents into a view, so that
// whoever is elected starts from a warm copy; on the leader it also acts. A new leader passes its
// Raft barrier, raises the term at every live agent and asks each what it runs (collecting), and
// from then on serves. Until all have answered, or two seconds have passed, it is recovering:
// reads and orders for known instances work and say so, orders for unknown ones wait.
//
// Nothing here is stored. The view is a cache of what agents said, the metadata (which nodes exist)
// is the Raft log's, and no instance ever enters that log.
package controlplane
