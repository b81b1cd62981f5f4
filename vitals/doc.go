// Package vitals is how nodes fare, in figures: what they count, how fast it grows, and how that was lately.
//
// An agent counts from its start ([Calls]) and tells every voter its counts every few seconds. A voter keeps a [Board] of
// them: the newest of each node, and bins of a few seconds for all nodes together, back to a quarter of an hour ago. What a node
// counted between two reports is spread evenly over the time between them. So the bins add up to what was counted,
// no matter when reports come: one that is late, after a cut, raises the bins of the cut and not the one in which it comes. Counts
// that begin anew with another life of an agent are those of that life, spread over it.
//
// It has no clock and no goroutine; callers bring those. Only [Calls] is safe for concurrent use.
package vitals
