package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// grpcByte opens HTTP/2's preface.
	grpcByte = 'P'
	// raftByte opens a Raft connection. Raft's own first byte is a small number (its RPC types), so
	// that a peer that forgot ours is refused rather than misread.
	raftByte = 'R'
	// replicaByte opens a connection of the Raft group that replicates keys and values, which has nothing
	// but the port in common with the metadata's.
	replicaByte = 'K'

	// firstByteTimeout is how long a caller may say nothing. Both protocols have the caller speak first
	// and at once; the rest is room for a lost packet or a paused host.
	firstByteTimeout = 5 * time.Second
	// maxUndecided is how many connections may be between accept and their protocol. More wait in the
	// kernel's backlog.
	maxUndecided = 1024
	// acceptBackoff is the wait after an accept that failed, for instance for want of descriptors; it
	// doubles up to acceptBackoffMax, as in net/http.
	acceptBackoff    = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// Port is the one TCP port that gRPC and two Raft groups share: the first byte of a connection says which.
type Port struct {
	log  *slog.Logger
	ln   net.Listener
	grpc *lane

	undecided chan struct{} // a slot per connection between accept and its lane
	work      sync.WaitGroup

	mu      sync.Mutex            // guards what follows
	streams map[byte]*RaftStream  // by the byte that opens their connections
	conns   map[net.Conn]struct{} // those that are undecided
	closed  bool
}

// Listen opens the port. Connections wait until Run.
func Listen(addr string, log *slog.Logger) (*Port, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on the rpc port: %w", err)
	}
	return newPort(ln, log), nil
}

func newPort(ln net.Listener, log *slog.Logger) *Port {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Port{
		log:       log,
		ln:        ln,
		grpc:      newLane(ln.Addr()),
		undecided: make(chan struct{}, maxUndecided),
		streams:   make(map[byte]*RaftStream),
		conns:     make(map[net.Conn]struct{}),
	}
}

// GRPC returns the listener of the gRPC connections. It closes with the port.
func (p *Port) GRPC() net.Listener { return p.grpc }

// RaftStream returns the side of the port of the metadata's Raft; peers dial it as advertise (host:port). There is
// one at a time: the next call closes the one before. Until the first, Raft connections are refused.
func (p *Port) RaftStream(advertise string) *RaftStream { return p.openStream(raftByte, advertise) }

// ReplicaStream returns the side of the port of the Raft group that replicates keys and values, in the same way.
func (p *Port) ReplicaStream(advertise string) *RaftStream {
	return p.openStream(replicaByte, advertise)
}

func (p *Port) openStream(first byte, advertise string) *RaftStream {
	s := newRaftStream(first, advertise)
	p.mu.Lock()
	old, closed := p.streams[first], p.closed
	p.streams[first] = s
	p.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	if closed {
		_ = s.Close()
	}
	return s
}

// Addr returns the address that the port listens on.
func (p *Port) Addr() net.Addr { return p.ln.Addr() }

// Run accepts connections until ctx ends or the port is closed. When it returns the port is closed
// and everything that it started has ended.
func (p *Port) Run(ctx context.Context) error {
	defer p.work.Wait()
	defer p.Close()
	defer context.AfterFunc(ctx, func() { _ = p.Close() })()

	backoff := acceptBackoff
	for {
		conn, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// What accept reports is about one caller or about want of descriptors or memory; both pass.
			p.log.WarnContext(ctx, "rpc port cannot accept", "addr", p.Addr().String(), "err", err, "retry_in", backoff)
			select {
			case <-time.After(backoff):
			case <-p.grpc.done:
			}
			backoff = min(2*backoff, acceptBackoffMax)
			continue
		}
		backoff = acceptBackoff
		select {
		case p.undecided <- struct{}{}:
		case <-p.grpc.done: // the port is closed
			_ = conn.Close()
			return nil
		}
		p.work.Go(func() {
			defer func() { <-p.undecided }()
			p.decide(conn)
		})
	}
}

// Close closes the port, all of its sides and the connections that nobody accepted. Accepted gRPC
// connections are their server's; Raft's are closed.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	streams := slices.Collect(maps.Values(p.streams))
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()

	err := p.ln.Close()
	_ = p.grpc.Close()
	for _, s := range streams {
		_ = s.Close()
	}
	return err
}

// decide reads the first byte of a connection and hands the connection to its protocol.
func (p *Port) decide(conn net.Conn) {
	if !p.hold(conn) {
		_ = conn.Close()
		return
	}
	first, err := readFirst(conn)
	stream := p.release(conn, first)
	switch {
	case err != nil:
		p.log.Debug("rpc connection closed before it said what it is", "addr", conn.RemoteAddr().String(), "err", err)
		_ = conn.Close()
	case first == grpcByte:
		p.grpc.put(&startedConn{Conn: conn, first: first})
	case stream != nil:
		stream.take(conn)
	default:
		p.log.Debug("rpc connection closed: neither gRPC nor Raft", "addr", conn.RemoteAddr().String(), "first_byte", first)
		_ = conn.Close()
	}
}

// hold keeps an undecided connection where Close finds it, and is false once the port is closed.
func (p *Port) hold(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

// release lets go of a connection and returns the Raft stream that it is for, or nil.
func (p *Port) release(conn net.Conn, first byte) *RaftStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	return p.streams[first]
}

// readFirst reads one byte, and no more: what follows belongs to the protocol.
func readFirst(conn net.Conn) (byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(firstByteTimeout)); err != nil {
		return 0, err
	}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return 0, err
	}
	return first[0], conn.SetReadDeadline(time.Time{})
}

// startedConn is a connection whose first byte has been read; it is read again.
type startedConn struct {
	net.Conn

	first byte
	given bool // one reader at a time, as gRPC has it
}

// Read gives the first byte, then what comes.
func (c *startedConn) Read(b []byte) (int, error) {
	if c.given || len(b) == 0 {
		return c.Conn.Read(b)
	}
	c.given = true
	b[0] = c.first
	return 1, nil
}

// lane is a listener whose connections come from the port.
type lane struct {
	addr  net.Addr
	conns chan net.Conn // unbuffered: whoever puts one waits for an Accept
	done  chan struct{}
	close sync.Once
}

var _ net.Listener = (*lane)(nil)

func newLane(addr net.Addr) *lane {
	return &lane{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put hands a connection to the next Accept, or closes it if there will be none.
func (l *lane) put(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.done:
		_ = conn.Close()
	}
}

// Accept waits for the next connection.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
}

// Close ends Accept; connections that were accepted go on.
func (l *lane) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

// Addr returns the address that peers dial.
func (l *lane) Addr() net.Addr { return l.addr }
