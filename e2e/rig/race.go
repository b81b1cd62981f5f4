//go:build race

package rig

// Race says whether the nodes run with the race detector, which makes them several times slower.
const Race = true
