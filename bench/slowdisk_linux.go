package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
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
	err := unix.Nanosleep(&held, &held)
	for errors.Is(err, unix.EINTR) { // by a signal of Go's own scheduler
		err = unix.Nanosleep(&held, &held)
	}
	return fs.ToErrno(err)
}

// serveSlowDisk is a slow disk, "MEMORY:MOUNTPOINT", until in ends. Each line of in says how long it holds a sync back, in nanoseconds, and is answered.
//
// It is a process of its own, and comes before all others: a disk does not wait for a processor.
func serveSlowDisk(at string, in io.Reader, out io.Writer) error {
	memory, mounted, _ := strings.Cut(at, ":")
	if err := beforeOthers(); err != nil {
		return err
	}
	root := fs.LoopbackRoot{Path: memory}
	disk := &slowDisk{LoopbackNode: &fs.LoopbackNode{RootData: &root}, syncs: new(atomic.Int64)}
	root.RootNode = disk
	known := time.Hour // the kernel knows what is on it, as nobody else changes that
	server, err := fs.Mount(mounted, disk, &fs.Options{
		EntryTimeout: &known, AttrTimeout: &known,
		MountOptions: fuse.MountOptions{
			DirectMountStrict: true, FsName: "slow",
			DisableXAttrs: true, // or the kernel asks this process for one at each write, which it knows by itself of a disk
		},
	})
	if err != nil {
		return fmt.Errorf("a slow disk is a file system of this program, which takes root to mount: %w", err)
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		held, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err == nil {
			disk.syncs.Store(held)
			_, err = fmt.Fprintln(out)
		}
		if err != nil {
			return errors.Join(err, server.Unmount())
		}
	}
	return server.Unmount()
}

// beforeOthers gives the threads that this process has, and those that they make, priority over what is not of real time.
func beforeOthers() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetAttr(id, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
			return fmt.Errorf("come before others, as a disk does: %w", err)
		}
	}
	return nil
}

// slowDiskOf mounts a disk on which appending a small record and syncing it takes that long.
func (b *bench) slowDiskOf(sync time.Duration) string {
	memory, mounted := b.inMemory(), b.TempDir()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self, "-serve-slow-disk", memory+":"+mounted)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			b.Errorf("unmount %s: %v", mounted, err)
		}
	})
	answers := bufio.NewReader(out)
	hold := func(held time.Duration) {
		if _, err := fmt.Fprintln(in, held.Nanoseconds()); err != nil {
			b.Fatal(err)
		}
		if _, err := answers.ReadString('\n'); err != nil {
			b.Fatal(fmt.Errorf("the slow disk has ended: %w", err))
		}
	}
	held := sync / 2
	hold(held)
	for range 5 { // what the call itself takes is part of the time
		held += sync - b.syncTime(mounted)
		hold(held)
	}
	return mounted
}
