// Package rpc is how nodes and clients talk: gRPC servers and clients, one TCP port with Raft,
// forwarding to the leader, and errors on the wire.
//
// # The port
//
// A node has one TCP port for gRPC and two Raft groups. The first byte that a caller sends says which:
//
//	'P'  0x50  gRPC without TLS: the byte opens HTTP/2's preface, "PRI * HTTP/2.0"; handed on with the rest
//	'R'  0x52  Raft of the metadata: the byte is ours and is taken off before Raft reads
//	'K'  0x4b  Raft of the group that replicates keys and values, likewise
//	     0x16  kept free for TLS, whose first record is a handshake
//
// Anything else is closed, and so is a connection that says nothing for a few seconds. Both
// protocols have the caller speak first, so that nothing has to be guessed. Each Raft side has a kill
// switch, [RaftStream.Cut], which leaves the rest alone: a leader whose disk hangs must fall silent as
// Raft while its node still answers.
//
// # Errors
//
// An [Error] is one of the contract's codes, a message for people and details for programs. It
// travels as a gRPC status with google.rpc.ErrorInfo and comes back the same; [FromError] gives
// every other error a code too, so that a user never sees a bare gRPC status.
//
// # Forwarding
//
// Any node takes a user's call; a server that does not lead passes it to the leader, once. A second
// hop is refused with NO_LEADER, because two nodes that disagree about the leader would otherwise
// play ping-pong. Nothing here repeats a call on its own: [Retry] is for the caller, who knows that
// the call carries ids which make a repetition safe. So a forwarded start that broke in flight,
// perhaps after the leader had acted on it, is simply sent again.
//
// The package knows no instance, no node and no Raft log. It has no TLS yet.
package rpc
