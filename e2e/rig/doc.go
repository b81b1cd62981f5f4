// Package rig runs real clusters for tests: real processes of the real binary on loopback.
//
// A [Cluster] has a subnet of 127.0.0.0/8 to itself, so that its nodes use the default ports and
// clusters never meet. Its nodes can be killed, paused, told to leave, and started again with the
// same data directory or another address; the command line is asked as a user would, with -o json.
// What a test waits for it says as a condition with a deadline: nothing here sleeps.
//
// Where a test is about the network itself, its nodes run on the hosts of a [Network], which can be
// cut in two: each host is a network namespace of Linux, which takes root and ip.
//
// When the test ends all processes end. If it failed, or a node raced or panicked, the log of each
// node is shown.
//
// The shapes that answers are decoded into are written down here once more, by the contract: a
// change of the product's own shapes must not pass unseen.
package rig
