// Package meter rewrites a module so that it accounts for what it computes, and can be stopped wherever it is.
//
// Each function entry and each loop head charges the cost of the straight code that follows to a counter, which is a global of the
// module, and calls the host when the counter is used up. So between two calls of the host a guest does a bounded amount of work,
// whatever it does, and what it costs is the same on every machine. Single instructions that work in proportion to a length are
// charged for it, and those that could go on for long are cut into pieces.
//
// The rewritten module behaves as the one before. What the change moves (indices of functions, in code, element segments, exports,
// the start function and names) is kept right. The guest can't reach the counter: what refers to a type, a function or a global that
// the module before did not have is refused, though the one after has it.
//
// It decides nothing about time, and runs nothing: the host that is called does (package runtime).
package meter
