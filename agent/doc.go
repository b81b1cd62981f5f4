// Package agent does what a host does: it supervises instances, applies their restart policies and
// reports what happened.
//
// Three ideas carry it. The agent is the truth about its host: each change of an instance is a new,
// immutable record with a sequence number, and every copy elsewhere follows from those (facts.go).
// Each live instance has one goroutine that takes it through its whole life, so that nothing about
// an instance happens in two places at once (supervise.go). And orders are fenced: one of a lower
// term than the highest seen is refused, so that a deposed leader changes nothing (orders.go).
//
// An agent decides nothing about other hosts: it doesn't place, move or recover. It keeps nothing on
// disk but modules: one that restarts begins empty, with a new boot id.
package agent
