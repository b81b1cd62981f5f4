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

// helloByte opens the word of which quorum a node is. Raft's own first byte is a small number.
const helloByte = 'Q'

// hello is what a node of a quorum says first. In the first quorum of a cluster that is nothing, as it was
// before there were others: nodes of that age are understood.
func (q Quorum) hello() []byte {
	if q == (Quorum{}) {
		return nil
	}
	raw := binary.BigEndian.AppendUint64([]byte{helloByte}, q.Generation)
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
	if c.checked || len(b) == 0 {
		return c.Conn.Read(b)
	}
	first, err := c.check()
	if err != nil {
		c.stream.log.Debug("raft traffic was refused", "addr", c.RemoteAddr().String(), "err", err)
		return 0, io.EOF // Raft closes the connection, and has nothing to add
	}
	c.checked = true
	return copy(b, first), nil
}

// check returns the first byte of what follows the word of which quorum the peer is.
func (c *quorumConn) check() ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	ours := c.stream.quorum.hello()
	theirs := make([]byte, len(ours)+1)
	for at := range theirs { // byte by byte, since a peer of the first quorum may say less and wait
		if _, err := io.ReadFull(c.Conn, theirs[at:at+1]); err != nil {
			return nil, err
		}
		if at < len(ours) && theirs[at] != ours[at] || at == len(ours) && theirs[at] == helloByte {
			return nil, fmt.Errorf("it is of another quorum: it begins with %x, and this node is of %+v", theirs[:at+1], c.stream.quorum)
		}
	}
	return theirs[len(ours):], c.SetReadDeadline(time.Time{})
}
