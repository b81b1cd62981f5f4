// Package fact is pure data: instance records, their merge, and an index of them.
//
// A record (*pb.Instance) is written by the agent that runs the instance and by nobody else; every
// other copy is a cache. Records are immutable once published: whoever changes one clones it first.
// [Merge] decides between two records of one id the same way on every node, in whatever order they
// arrive, and [Index] answers the questions that users ask of a set of records.
//
// There is no clock here, no I/O, no lock and no goroutine: callers bring those.
package fact
