package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// slowDisk is a file system in memory that takes its time for a sync, as a disk does: who waits for it waits in the kernel, and no
// processor works for it meanwhile.
type slowDisk struct {
	*fs.LoopbackNode

	syncs *atomic.Int64 // how long a sync is held back, in nanoseconds
}

var (
	_ fs.NodeFsyncer     = (*slowDisk)(nil)
	_ fs.NodeWrapChilder = (*slowDisk)(nil)
)

// WrapChild has all below the root be slow alike.
func (d *slowDisk) WrapChild(_ context.Context, below fs.InodeEmbedder) fs.InodeEmbedder {
	return &slowDisk{LoopbackNode: below.(*fs.LoopbackNode), syncs: d.syncs} //nolint:forcetypeassert // it makes no others
}

// Fsync takes its time.
func (d *slowDisk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	// Timers of Go, and those of a thread with the usual slack, are late by more than is to be measured.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fs.ToErrno(err)
	}
	held := unix.NsecToTimespec(d.syncs.Load())
	return fs.ToErrno(unix.Nanosleep(&held, nil))
}

// slowDiskOf mounts a disk on which appending a small record and syncing it takes that long.
func (b *bench) slowDiskOf(sync time.Duration) string {
	memory, mounted := b.inMemory(), b.TempDir()
	root := fs.LoopbackRoot{Path: memory}
	disk := &slowDisk{LoopbackNode: &fs.LoopbackNode{RootData: &root}, syncs: new(atomic.Int64)}
	root.RootNode = disk
	server, err := fs.Mount(mounted, disk, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "slow"}})
	if err != nil {
		b.Fatalf("a slow disk is a file system of this program, which takes root to mount: %v", err)
	}
	b.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			b.Errorf("unmount %s: %v", mounted, err)
		}
	})
	// What the call itself takes is part of the time.
	for range 5 {
		took := b.syncTime(mounted)
		disk.syncs.Add(int64(sync - took))
	}
	return mounted
}
