// Package chaos breaks real clusters at random and proves that nothing was lost or doubled.
//
// A storm is a number of rounds. In each, clients start, stop and drain while a nemesis kills, pauses
// and cuts off nodes, and spoils their links, disks and clocks; then everything is healed, and once the cluster is one again it must run what it
// promised to run: each instance whose start was acknowledged, once, and none whose stop was.
//
// The faults of a storm are a pure function of its seed ([Plan]). What the clients asked, what became of
// it, the faults, and what was seen after each round is a history, one JSON object a line; whether it
// holds a violation is a pure function too ([Check]), which needs no cluster to be tested. The
// same function says when the cluster has settled: it is asked until it finds nothing, or time is up.
//
// That something runs once is not left to what nodes say. Guests print a nonce that they draw at their
// start, so two copies of an instance print two nonces; each node's agent is asked itself what it runs
// and what its guests print; and the memory of a node's guests is counted from outside.
//
// Which faults there are says [Faults], and nothing excuses what they do. A history does not show that an order of operations was legal
// while the cluster was broken: what is read then may be old, and only must come right.
package chaos
