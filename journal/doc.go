// Package journal keeps an agent's instance records on disk, durable by group commit, and salvages
// what damage left intact.
//
// Three ideas carry it. Memory holds the newest record of each instance, already encoded, and what
// of that is not on disk yet; one goroutine takes all of it at once, writes it with one write and
// syncs once for everybody who waits (writer.go). Each frame of the file stands by itself, with a
// marker and a checksum, so that reading goes on behind whatever is damaged (frame.go, open.go). And
// a file is trusted only as long as every write to it succeeded: after a start, an error, or when it
// has grown, a fresh one is written beside it and renamed over it, whole or not at all.
//
// It is a file of our own because bbolt can't read on behind a flipped bit, and the logs made for Raft
// want indexes without gaps that nothing here has.
//
// It does not decide what is worth keeping, keeps no history, and holds neither guest memory nor
// output. One process at a time may have it open; the lock on the data directory sees to that.
package journal
