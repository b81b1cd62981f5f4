//go:build !linux

package rig

import (
	"context"
	"net"
)

// Dial connects to an address as a process on the node's host would.
func (n *Node) Dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", address)
}
