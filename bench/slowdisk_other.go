//go:build !linux

package main

import "time"

// slowDiskOf is for Linux only so far.
func (b *bench) slowDiskOf(time.Duration) string {
	b.Fatal("a disk is made slow on Linux only")
	return ""
}
