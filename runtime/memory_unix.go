//go:build unix

package runtime

import "golang.org/x/sys/unix"

// reserve returns addresses for size bytes that become memory when touched.
func reserve(size uint64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	return unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
}

// release gives addresses back.
func release(reserved []byte) {
	if len(reserved) > 0 {
		_ = unix.Munmap(reserved) // fails only for what reserve did not return
	}
}
