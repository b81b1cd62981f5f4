//go:build unix

package node

import "golang.org/x/sys/unix"

// mayWrite says why this user can't make files in a directory.
func mayWrite(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
