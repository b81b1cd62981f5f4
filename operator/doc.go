// Package operator is what a person does by hand, on bad days: look into a node, change what it logs, and collect what a bug
// report needs; and to the quorum: look at it, take a dead voter's vote, hand leadership over, save and restore the metadata,
// and found a new one when the old one is lost for ever.
//
// Whether a new quorum may be founded is decided from a plain value ([survey]), gathered from all nodes
// that are there: never while somebody leads or enough voters live, and only where most is known. How it
// is done is the business of package cluster.
package operator
