// Package proto holds the wire: the .proto sources, with the code generated from them beside them.
//
// There is one package, wasmatrix/v1: what nodes say to each other, what clients say to nodes, and
// what the Raft log holds. Numbers are never reused and fields never change their meaning, since
// nodes of two versions talk to each other during an upgrade.
//
// It does no more than that: checks and conversions live with those who use the messages.
package proto
