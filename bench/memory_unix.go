//go:build unix

package main

import (
	"context"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// withMemory gives guests the kind of memory that nodes give them, so that only their interruption differs: wazero's own is copied when
// it grows.
func withMemory(ctx context.Context) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		mapped, err := unix.Mmap(-1, 0, guestMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err != nil {
			return nil // which wazero takes for a lack of memory
		}
		return linearMemory(mapped)
	}))
}

// linearMemory is reserved whole, and real where it was touched.
type linearMemory []byte

var _ experimental.LinearMemory = linearMemory(nil)

// Reallocate implements the method of that name.
func (m linearMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(m)) {
		return nil
	}
	return m[:size]
}

// Free implements the method of that name.
func (m linearMemory) Free() { _ = unix.Munmap(m) }
