// Package e2e proves with real processes what the contract promises.
//
// Each test runs a cluster on loopback through [github.com/wasmatrix/wasmatrix/e2e/rig] and asks it
// as a user would: with the command line and over HTTP. The one that cuts the network has hosts of its
// own, and the one that hangs a disk holds a node's system calls up: each is skipped where that can't
// be done. Tests that assert timing, such as that no
// election happens beside hostile guests, run alone; the others run two at a time.
//
// What can be shown without processes is shown in the rooms themselves, faster.
package e2e
