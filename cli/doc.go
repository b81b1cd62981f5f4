// Package cli is the command line: `agent` runs a node, the other commands ask one.
//
// A command is a flag set, one or two calls and a way to print the answer. [Main] turns its error
// into the exit code: 0 done, 1 the operation failed, 2 the command line was wrong. Flags, their
// environment variables, defaults and help are told once, in the command tree; docs/cli.md is made
// from it.
//
// Calls are repeated while there is no leader, within --timeout, and always with the same instance
// ids, so that a retry starts nothing twice. What is valid is decided by the cluster; here only what
// cannot be understood is refused.
package cli
