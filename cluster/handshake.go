package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// helloTimeout is how long a peer may take to say of which quorum it is.
const helloTimeout = 5 * time.Second

// quorumStream lets Raft's traffic pass only between nodes of the same quorum: whoever dials says first
// which one it belongs to.
//
// Without it, two returning voters of a quorum that was given up elect a leader between them, whose term
// grows with each attempt until the new quorum's leader bows to it: Raft takes entries from anybody.
type quorumStream struct {
	StreamLayer

	quorum Quorum
	log    *slog.Logger
}

func (q Quorum) hello() []byte {
	raw := binary.BigEndian.AppendUint64(nil, q.Generation)
	raw = append(raw, byte(len(q.Founder)))
	return append(raw, q.Founder...)
}

// Dial connects to a peer and says of which quorum this node is.
func (s *quorumStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := s.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	err = conn.SetWriteDeadline(time.Now().Add(timeout))
	if err == nil {
		_, err = conn.Write(s.quorum.hello())
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raft to %s: %w", address, err), conn.Close())
	}
	return conn, nil
}

// Accept waits for the next connection. Its first Read reads of which quorum it is, so that a silent
// peer holds up nobody else.
func (s *quorumStream) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return &quorumConn{Conn: conn, stream: s}, nil
}

// quorumConn is a connection that a peer opened.
type quorumConn struct {
	net.Conn

	stream  *quorumStream
	checked bool // one reader at a time, as Raft has it
}

// Read reads what a peer of the same quorum says.
func (c *quorumConn) Read(b []byte) (int, error) {
	if !c.checked {
		if err := c.check(); err != nil {
			c.stream.log.Debug("raft traffic was refused", "addr", c.RemoteAddr().String(), "err", err)
			return 0, io.EOF // Raft closes the connection, and has nothing to add
		}
		c.checked = true
	}
	return c.Conn.Read(b)
}

func (c *quorumConn) check() error {
	if err := c.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	ours := c.stream.quorum.hello()
	theirs := make([]byte, len(ours))
	if _, err := io.ReadFull(c.Conn, theirs); err != nil {
		return err
	}
	if string(theirs) != string(ours) {
		return fmt.Errorf("it is of another quorum: it says %x, and this node is of %x", theirs, ours)
	}
	return c.SetReadDeadline(time.Time{})
}
