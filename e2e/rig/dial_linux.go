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
	// A dial to a literal address makes its socket on the caller's thread.
	var conn net.Conn
	err := inNamespace(n.enter[len(n.enter)-1], func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil && conn != nil {
		err, conn = errors.Join(err, conn.Close()), nil
	}
	return conn, err
}

// inNamespace does something on a thread in a network namespace: what is opened there belongs to it.
func inNamespace(name string, do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", name, err)
	}
	defer home.Close()
	if err := enter(filepath.Join("/run/netns", name)); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", name, err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that it ends with its goroutine and nobody else gets it.
		return errors.Join(err, fmt.Errorf("come back from %s: %w", name, back))
	}
	runtime.UnlockOSThread()
	return err
}

func enter(namespace string) error {
	file, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}
