// Package capability decides what a guest may do beyond computing, and carries out what it may.
//
// A [Grant] of the wire lets one instance use one provider, as far as its permissions say. [Compile] turns
// grants into [Rights], which are asked on every call: by the [Session] of the instance where the guest
// runs, and again where the provider runs. Nothing is allowed that no grant names, and grants change while the guest
// runs: what is revoked is refused from the next call on, also where that is waiting for a message.
//
// What providers do is three small interfaces, [KV], [HTTP] and [Messaging], whose engines live in the
// rooms below this one. A Session finds them through a [Directory], and neither knows nor cares on which node
// they run. Every failure is an [*Error] with a [Status], which is what the guest sees.
//
// The package knows no memory of guests (that is runtime's) and no node, gossip or Raft.
package capability
