// Command bench measures the figures that the project promises.
//
// It runs bin/wasmatrix in real clusters on loopback, asks it as users and programs do, and prints one
// table with the medians, what was promised, and the machine. `make bench` builds first.
//
// It compares nothing over time: docs/benchmarks.md keeps the tables worth keeping.
package main
