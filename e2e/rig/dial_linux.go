package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an address as a process on the node's host would.
func (n *Node) Dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	if len(n.enter) == 0 {
		return dialer.DialContext(ctx, "tcp", address)
	}
	// A socket belongs to the namespace of the thread that made it, and a dial to a literal address makes
	// its socket on the caller's thread.
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("dial from the host of %s: %w", n.Name, err)
	}
	defer home.Close()
	if err := enter(filepath.Join("/run/netns", n.enter[len(n.enter)-1])); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("dial from the host of %s: %w", n.Name, err)
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that it ends with its goroutine and nobody else gets it.
		return nil, errors.Join(err, fmt.Errorf("come back from the host of %s: %w", n.Name, back))
	}
	runtime.UnlockOSThread()
	return conn, err
}

func enter(namespace string) error {
	file, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}
