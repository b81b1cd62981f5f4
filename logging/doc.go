// Package logging builds what a node logs with: where lines go, in which format, from which level on, and what is kept of them.
//
// The level can change while the node runs, for good or for a time ([Level]). The last lines are kept in memory, within a bound,
// so that a bug report can have them wherever stderr went.
//
// It decides nothing about what is logged, and reads no flag.
package logging
