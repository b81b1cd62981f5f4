package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// maxMessage is the most that one message may have, both ways. Modules and lists travel in chunks far
	// below it; it bounds what one caller can make a node hold.
	maxMessage = 64 << 20

	// reconnectMax caps the wait between two attempts to connect: a restarted node is found again within it.
	reconnectMax = 500 * time.Millisecond
	// connectTimeout is how long one attempt may take: a lost SYN is sent again after 1 s. Calls wait for
	// it, so it also bounds how long a host that vanished holds them.
	connectTimeout = 2 * time.Second
	// clientKeepalive is how long a silent connection goes unasked; gRPC takes no less than 10 s.
	clientKeepalive = 10 * time.Second
	// keepaliveTimeout is how long the answer may take: longer than the pauses of a busy 2-core host. On
	// the client's side it also bounds unacknowledged data (TCP_USER_TIMEOUT).
	keepaliveTimeout = 5 * time.Second
	// clientIdle closes connections without calls. Without it a peer that is gone is redialed for ever.
	clientIdle = 5 * time.Minute

	// The waits of Retry: they double from retryStart; jitter takes off or adds up to half, so that the
	// longest is 500 ms.
	retryStart  = 50 * time.Millisecond
	retryMax    = 333 * time.Millisecond
	retryJitter = 0.5
)

// Dial makes a client connection to a node. It connects at the first call, and again whenever it has to.
func Dial(addr string) (*grpc.ClientConn, error) { return dialAs(userAgent, addr) }

func dialAs(agent, addr string) (*grpc.ClientConn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return nil, Errorf(InvalidRequest, "%q is no address of a node; it would be HOST:PORT", addr)
	}
	// passthrough: the dialer resolves the name, at each connect anew.
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(agent),
		grpc.WithNoProxy(), // a cluster's traffic is no web traffic
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientKeepalive, Timeout: keepaliveTimeout}),
		grpc.WithIdleTimeout(clientIdle),
		grpc.WithChainUnaryInterceptor(carryUnary),
		grpc.WithChainStreamInterceptor(carryStream),
	)
	if err != nil {
		return nil, fmt.Errorf("address of node %q: %w", addr, err)
	}
	return conn, nil
}

// Retry repeats op, with backoff and jitter, while its error is retryable and ctx has not ended; op
// must be safe to repeat. When ctx ends, Retry returns what kept op from succeeding (NO_LEADER, say),
// and that time ran out only if nothing else is known.
func Retry(ctx context.Context, op func(context.Context) error) error {
	var (
		last     error
		attempts int
	)
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempts++
		err := op(ctx)
		switch {
		case err == nil:
			return struct{}{}, nil
		case last == nil || !ranOut(ctx, err):
			last = err
		}
		if !Retryable(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval:     retryStart,
		RandomizationFactor: retryJitter,
		Multiplier:          2,
		MaxInterval:         retryMax,
	}), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	if attempts == 1 {
		return FromError(last)
	}
	return FromError(last).With("attempts", strconv.Itoa(attempts))
}

// ranOut says whether err is only the news that ctx ends.
func ranOut(ctx context.Context, err error) bool {
	if status.Code(err) == codes.Canceled || errors.Is(err, context.Canceled) {
		return ctx.Err() != nil
	}
	// A server sees the deadline of a call too, and its word may come a little before our own clock's.
	deadline, ok := ctx.Deadline()
	return CodeOf(err) == Timeout && ok && time.Until(deadline) < retryStart
}

// Conn is a connection to a node.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// peerKept is how long a connection that nothing uses is kept for an address that may come back: a node's may change at each
// of its starts, and each one is some kilobytes.
const peerKept = time.Hour

// Peers keeps one client connection per address, for calls between nodes.
type Peers struct {
	dial func(addr string) (Conn, error)

	mu     sync.Mutex // guards what follows
	conns  map[string]*peerConn
	closed bool
}

// peerConn is a connection, and when it was used last.
type peerConn struct {
	Conn

	used time.Time
}

// NewPeers returns an empty cache of connections over TCP.
func NewPeers() *Peers {
	return NewPeersOver(func(addr string) (Conn, error) { return dialAs(nodeAgent, addr) })
}

// NewPeersOver returns an empty cache of connections that dial makes: those of a simulated network, for one.
func NewPeersOver(dial func(addr string) (Conn, error)) *Peers {
	return &Peers{dial: dial, conns: make(map[string]*peerConn)}
}

// Conn returns the connection to addr, which connects at its first call, and is good for as long as there are Peers.
func (p *Peers) Conn(addr string) (grpc.ClientConnInterface, error) {
	if _, err := p.conn(addr); err != nil {
		return nil, err
	}
	return sharedConn{p, addr}, nil
}

// conn returns the connection to addr, for a call that begins now.
func (p *Peers) conn(addr string) (Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, Errorf(CommunicationFailure, "connection to %s: this node is shutting down", addr)
	}
	if conn, ok := p.conns[addr]; ok {
		conn.used = time.Now()
		return conn.Conn, nil
	}
	p.forgetLocked()
	conn, err := p.dial(addr)
	if err != nil {
		return nil, err
	}
	p.conns[addr] = &peerConn{conn, time.Now()}
	return conn, nil
}

// forgetLocked closes what no call has used for an hour, and none uses now.
func (p *Peers) forgetLocked() {
	for addr, conn := range p.conns {
		state, known := conn.Conn.(interface{ GetState() connectivity.State })
		if known && state.GetState() == connectivity.Idle && time.Since(conn.used) > peerKept {
			delete(p.conns, addr)
			_ = conn.Close() // nothing goes over it
		}
	}
}

// sharedConn is a connection of Peers', whichever that is at each call.
type sharedConn struct {
	peers *Peers
	addr  string
}

var _ grpc.ClientConnInterface = sharedConn{}

// Invoke implements grpc.ClientConnInterface.
func (s sharedConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := s.peers.conn(s.addr)
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (s sharedConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := s.peers.conn(s.addr)
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, opts...)
}

// Close closes all connections; calls on them fail.
func (p *Peers) Close() error {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
