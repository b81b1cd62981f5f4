//go:build !linux

package main

import (
	"errors"
	"io"
	"time"
)

var errNoSlowDisk = errors.New("a disk is made slow on Linux only")

func serveSlowDisk(string, io.Reader, io.Writer) error { return errNoSlowDisk }

// slowDiskOf is for Linux only so far.
func (b *bench) slowDiskOf(time.Duration) string {
	b.Fatal(errNoSlowDisk)
	return ""
}
