// Package cluster knows who is here, who is alive, and who leads.
//
// Gossip (memberlist) finds the nodes and notices the dead; Raft elects the leader among a few
// voters and keeps the metadata. Nodes are named by their id in both, and Raft takes addresses from
// gossip, so any node, or all of them, may come back somewhere else. Every node runs Raft, but only
// those that the leader adds are voters ([planVoters] chooses); the others learn the leader by gossip.
//
// A node that is gone is redialled for ever, since memberlist forgets the dead: a cluster that was
// split finds itself again. Two clusters never merge.
//
// The package does not know what runs on the nodes, and decides nothing about it.
package cluster
