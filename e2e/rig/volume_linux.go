package rig

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// volumes counts the volumes of this process, which are named by it.
var volumes atomic.Uint32

// Volume is a file system of its own for the data of one node: a disk that can be full. It is in memory.
type Volume struct {
	t    T
	path string
	size uint64
}

// NewVolume makes a volume of that many bytes at a path, which must not exist. When the test ends, what is
// on it stays at the path; so make it before the cluster whose nodes use it.
//
// The error says why this process may not mount it; whatever else fails ends the test.
func NewVolume(t T, path string, size uint64) (*Volume, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("to mount takes root, and this is user %d", os.Geteuid())
	}
	unmountOrphans(t)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("wasmatrix-%d-volume%d", os.Getpid(), volumes.Add(1))
	if err := unix.Mount(name, path, "tmpfs", 0, fmt.Sprintf("mode=0700,size=%d", size)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a file system at %s: %w", path, err), os.Remove(path))
	}
	v := &Volume{t: t, path: path, size: size}
	t.Cleanup(v.end)
	return v, nil
}

// Path returns where it is.
func (v *Volume) Path() string { return v.path }

// Fill leaves no room on it: it becomes as small as what is on it, as if others had filled the rest.
func (v *Volume) Fill() {
	v.t.Helper()
	Wait(v.t, "a volume to be full", 5*time.Second, func() error {
		var now unix.Statfs_t
		if err := unix.Statfs(v.path, &now); err != nil {
			return fmt.Errorf("%s: %w", v.path, err)
		}
		return v.resize((now.Blocks - now.Bfree) * uint64(now.Bsize)) // refused where it grew since
	})
}

// Free gives it all its room back.
func (v *Volume) Free() {
	v.t.Helper()
	if err := v.resize(v.size); err != nil {
		v.t.Fatal(err)
	}
}

func (v *Volume) resize(size uint64) error {
	// A size of nothing is one without bounds.
	if err := unix.Mount("", v.path, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", max(size, 1))); err != nil {
		return fmt.Errorf("make %s %d bytes large: %w", v.path, size, err)
	}
	return nil
}

// end takes the volume away, and leaves a copy of what was on it in its place.
func (v *Volume) end() {
	kept := v.path + ".kept"
	if err := errors.Join(os.CopyFS(kept, os.DirFS(v.path)), unix.Unmount(v.path, 0), os.Remove(v.path), os.Rename(kept, v.path)); err != nil {
		v.t.Errorf("take a volume away: %v", err)
	}
}

// unmountOrphans takes away the volumes of test processes that were killed before they could.
func unmountOrphans(t T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 2 && words[2] == "tmpfs" && orphaned(words[0]) {
			if err := unix.Unmount(words[1], unix.MNT_DETACH); err != nil {
				t.Logf("%s: %v", words[1], err) // another process may sweep, too
			}
		}
	}
}
