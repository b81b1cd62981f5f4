// Package kv is the engines that keep keys and values outside of the cluster's own replicas.
//
// [Open] has one for each kind of backend URL: memory:, redis://, nats:// (JetStream) and etcd://. All do the same, as
// package kvtest shows, and differ in what they promise: a memory engine forgets everything, and the others are as
// durable as their servers are set up to be. The default backend, raft:, is package replica's. Several providers may share a server:
// what an engine keeps begins with the id of its provider.
//
// Engines connect when they are first used and again whenever a connection breaks; until then, calls end with
// Unavailable. Only reads are repeated by themselves: of a write that broke off nobody knows whether it was done. Secrets of
// a URL are in no error and no log.
//
// What each keeps on its server is told in its file.
package kv
