// Package messaging passes messages on between guests, and between them and whoever else speaks NATS.
//
// A [Server] is the NATS server that every node has in it: core NATS and nothing more, so what it holds is in memory and
// gone with the process. Its routes follow gossip through [Server.SetRoutes], from one node to many and back, while it
// runs. A [Conn] is the engine, a [capability.Messaging] on one connection to that server, within the process, or to an existing
// NATS cluster by its URL.
//
// Delivery is at most once, as NATS has it, and what happens where somebody is too slow is bounded at each place; the
// table is in docs/decisions/008-messaging-server.md. The last bound, and the one that is usually met, is the
// inbox of the instance, which counts what it drops.
//
// The package decides nothing about who may send or hear what: that was done before it is called. It persists nothing, and has
// no streams.
package messaging
