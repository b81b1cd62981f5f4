package rpc

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrCut is what Raft is told when it dials while its stream is cut.
var ErrCut = errors.New("raft traffic of this node is cut")

// RaftStream is the side of the port of one Raft group, for raft.NewNetworkTransport.
//
// It knows every connection that it gave out, so that Cut can end them all.
type RaftStream struct {
	first byte // which opens its connections
	lane  *lane

	mu    sync.Mutex // guards what follows
	conns map[*raftConn]struct{}
	cut   bool
	shut  bool
}

var _ raft.StreamLayer = (*RaftStream)(nil)

func newRaftStream(first byte, advertise string) *RaftStream {
	return &RaftStream{first: first, lane: newLane(advertised(advertise)), conns: make(map[*raftConn]struct{})}
}

// Accept waits for the next connection of a peer. While the stream is cut there is none.
func (s *RaftStream) Accept() (net.Conn, error) { return s.lane.Accept() }

// Addr returns the advertised address.
func (s *RaftStream) Addr() net.Addr { return s.lane.Addr() }

// Dial connects to a peer's port and says which Raft group this is.
func (s *RaftStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	// Asked again by track; here it spares a peer the noise.
	if err := s.usable(); err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", string(address), timeout)
	if err != nil {
		return nil, err
	}
	c, err := s.track(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := c.introduce(timeout); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("raft to %s: %w", address, err)
	}
	return c, nil
}

// Cut is the kill switch: it closes all connections of the stream, in and out, and refuses new
// ones until Restore. gRPC goes on. When it returns no byte of the stream passes any more.
func (s *RaftStream) Cut() {
	s.mu.Lock()
	s.cut = true
	conns := s.takeAllLocked()
	s.mu.Unlock()
	closeAll(conns)
}

// Restore takes Cut back; Raft redials by itself.
func (s *RaftStream) Restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = false
}

// Close ends Accept and closes all connections: raft.NetworkTransport leaves those that it accepted
// open when it closes, and would wait on them until the peer goes. gRPC goes on.
func (s *RaftStream) Close() error {
	s.mu.Lock()
	s.shut = true
	conns := s.takeAllLocked()
	s.mu.Unlock()
	closeAll(conns)
	return s.lane.Close()
}

// take passes on a peer's connection, whose first byte has been read.
func (s *RaftStream) take(conn net.Conn) {
	c, err := s.track(conn)
	if err != nil {
		_ = conn.Close()
		return
	}
	s.lane.put(c)
}

func (s *RaftStream) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usableLocked()
}

func (s *RaftStream) usableLocked() error {
	switch {
	case s.shut:
		return net.ErrClosed
	case s.cut:
		return ErrCut
	default:
		return nil
	}
}

// track makes conn one that Cut and Close end.
func (s *RaftStream) track(conn net.Conn) (*raftConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, err
	}
	c := &raftConn{Conn: conn, stream: s}
	s.conns[c] = struct{}{}
	return c, nil
}

func (s *RaftStream) forget(c *raftConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *RaftStream) takeAllLocked() map[*raftConn]struct{} {
	conns := s.conns
	s.conns = make(map[*raftConn]struct{})
	return conns
}

func closeAll(conns map[*raftConn]struct{}) {
	for c := range conns {
		// The inner one: c.Close would come back for the lock once per connection.
		_ = c.Conn.Close()
	}
}

// raftConn is one connection of a RaftStream.
type raftConn struct {
	net.Conn

	stream *RaftStream
}

// Close closes the connection and lets the stream forget it.
func (c *raftConn) Close() error {
	c.stream.forget(c)
	return c.Conn.Close()
}

// introduce writes the byte that opens a connection of the stream.
func (c *raftConn) introduce(timeout time.Duration) error {
	if timeout > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
	}
	if _, err := c.Write([]byte{c.stream.first}); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// advertised is an address that others dial; it may be a host name.
type advertised string

// Network returns "tcp".
func (advertised) Network() string { return "tcp" }

// String returns host:port.
func (a advertised) String() string { return string(a) }
