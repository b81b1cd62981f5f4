// Package deploy has no code: what runs nodes on hosts lies here, each kind in a folder of its own, and the tests beside this file
// look at it as its readers do.
//
// A test runs the reader itself where the machine has it (systemd-analyze, nomad, shellcheck, dpkg), and says where it is left out.
// What a file tells the binary, a flag or a variable, must be in docs/cli.md.
//
// It does not run clusters: e2e does that.
package deploy
