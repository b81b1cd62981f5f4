//go:build !unix

package runtime

// reserve has no cheap way to reserve here: the memory is real from the start.
func reserve(size uint64) ([]byte, error) { return make([]byte, size), nil }

// release leaves it to the garbage collector.
func release([]byte) {}
