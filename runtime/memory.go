package runtime

import (
	"fmt"
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
)

// allocator gives one instance its memory: the limit is reserved as addresses, and pages are real
// once they are touched, so that growing moves nothing and an idle guest costs what it uses.
type allocator struct {
	limit uint64 // bytes
	need  uint64 // what the module starts with, if that is more than the limit
	err   error  // why memory could not be had

	now, peak atomic.Uint64 // bytes that the guest has
}

var _ experimental.MemoryAllocator = (*allocator)(nil)

// Allocate reserves a memory. limit is per instance, and of its memories only one is allowed by our
// feature set.
func (a *allocator) Allocate(_, most uint64) experimental.LinearMemory {
	reserved, err := reserve(min(most, a.limit))
	if err != nil {
		a.err = fmt.Errorf("reserve %d bytes of memory: %w", min(most, a.limit), err)
	}
	return &memory{owner: a, reserved: reserved}
}

type memory struct {
	owner    *allocator
	reserved []byte // all that the guest can ever have
	grown    bool
}

// Reallocate makes size bytes of the reservation usable. nil makes the guest's memory.grow answer -1.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.reserved)) {
		if !m.grown { // the very first size is the module's own minimum
			m.owner.need = size
		}
		return nil
	}
	m.grown = true
	m.owner.now.Store(size)
	m.owner.peak.Store(size) // it never shrinks
	return m.reserved[:size:len(m.reserved)]
}

// Free gives the memory back.
func (m *memory) Free() {
	release(m.reserved)
	m.reserved = nil
	m.owner.now.Store(0)
}
