package messaging

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/capability"
)

// ConnConfig says where an engine connects to: to one of Server and Backend.
type ConnConfig struct {
	Server  *Server // the one in this process, which has started
	Backend string  // nats://[USER:PASSWORD@]HOST:PORT[,...] or tls://

	// The connection is not for guests but for the node, which may publish below [capability.ClusterSubject]. It needs Server.
	OfNode bool

	Name string // by which NATS lists the connection
	// How long the server may take to confirm a subscription or a check, where the caller sets no time. Default 5s, which is
	// what a provider has to answer in.
	Timeout time.Duration
	Log     *slog.Logger // nil for nowhere
}

const (
	dialTimeout   = 2 * time.Second
	reconnectWait = 500 * time.Millisecond // after all servers were tried; half of it again is random
	// A server that does not answer two pings is given up. NATS asks every two minutes, which is a long time to be deaf.
	pingInterval = 5 * time.Second
	// What one subscription may have waiting in this process before the newest is dropped. It is more than an
	// instance's inbox takes (1,024 messages, 8 MiB), and a delivery never blocks: so what is lost is decided there,
	// unless the process is starved of CPU.
	pendingMessages = 8192
	pendingBytes    = 32 << 20
)

// Conn is one connection to NATS, shared by all guests of a node that use a provider. It reconnects for ever;
// meanwhile nothing is kept for later, and calls are Unavailable.
type Conn struct {
	cfg   ConnConfig
	first func()        // closes tried, once
	tried chan struct{} // closed when the connection was up for the first time, or will not be

	mu sync.Mutex // guards all below; no subscription's is taken under it, for a delivery may come here

	nats   *nats.Conn // nil until the first try is over
	up     context.Context
	down   context.CancelCauseFunc // ends up
	why    string                  // why it is not connected
	subs   map[*subscription]struct{}
	lost   uint64 // messages dropped for subscriptions that are closed
	closed bool
}

var _ capability.Messaging = (*Conn)(nil)

var errLost = errors.New("the connection was lost")

// Open begins to connect, and returns when the first try is over or ctx ends. Only a wrong configuration is an error: a server
// that is not there yet is tried again until Close.
func Open(ctx context.Context, cfg ConnConfig) (*Conn, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Conn{cfg: cfg, tried: make(chan struct{}), why: "not connected yet", subs: map[*subscription]struct{}{}}
	c.first = sync.OnceFunc(func() { close(c.tried) })
	c.up, c.down = context.WithCancelCause(context.Background())
	c.down(errLost)

	options := []nats.Option{
		nats.Name(cfg.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // whoever mends the password should not have to restart us
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait/2, reconnectWait/2),
		nats.ReconnectBufSize(-1), // keep nothing for later
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.NoCallbacksAfterClientClose(),
		nats.ConnectHandler(c.connected),
		nats.ReconnectHandler(c.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ErrorHandler(c.complain),
	}
	servers := "nats://in-process"
	switch {
	case cfg.Server != nil && cfg.Backend != "":
		return nil, errors.New("a messaging connection goes to the node's own server or to a backend, not to both")
	case cfg.Server != nil:
		options = append(options, nats.InProcessServer(cfg.Server), nats.IgnoreDiscoveredServers())
		if cfg.OfNode {
			options = append(options, nats.Token(cfg.Server.own))
		}
	default:
		b, err := parseBackend(cfg.Backend)
		if err != nil {
			return nil, err
		}
		options = append(options, b.options()...)
		servers = strings.Join(b.servers, ",")
	}

	go func() { // NATS tries each server once before it returns
		nc, err := nats.Connect(servers, options...)
		c.opened(nc, err)
	}()
	select {
	case <-c.tried:
	case <-ctx.Done():
	}
	return c, nil
}

// opened takes over what the first try made.
func (c *Conn) opened(nc *nats.Conn, err error) {
	if err != nil { // a try that failed is none: that is retried
		c.disconnected(err)
		c.first()
		return
	}
	c.mu.Lock()
	closed := c.closed
	c.nats = nc
	c.mu.Unlock()
	if closed {
		nc.Close()
	}
	if !nc.IsConnected() { // else connected is about to be called
		c.first()
	}
}

func (c *Conn) connected(nc *nats.Conn) {
	defer c.first()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up.Err() == nil || c.closed {
		return
	}
	c.nats = nc // which opened may not have been told yet
	c.up, c.down = context.WithCancelCause(context.Background())
	c.cfg.Log.Info("messaging connected", "addr", nc.ConnectedAddr())
}

func (c *Conn) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.why = err.Error()
	}
	if c.up.Err() == nil && !c.closed {
		c.cfg.Log.Warn("messaging disconnected", "err", c.why)
	}
	c.down(errLost)
}

// complain hears of what went wrong between calls.
func (c *Conn) complain(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.cfg.Log.Warn("messaging", "subject", subject, "err", err)
}

// live returns the connection, and a context that ends when it breaks.
func (c *Conn) live() (*nats.Conn, context.Context, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, nil, capability.Errorf(capability.Unavailable, "the messaging provider was stopped")
	case c.nats == nil || c.up.Err() != nil:
		return nil, nil, capability.Errorf(capability.Unavailable, "messaging is not connected: %s", c.why)
	}
	return c.nats, c.up, nil
}

// Check asks the server whether it is there.
func (c *Conn) Check(ctx context.Context) error {
	nc, up, err := c.live()
	if err != nil {
		return err
	}
	return c.roundTrip(ctx, up, nc)
}

// roundTrip returns when the server has seen to all that was sent before.
func (c *Conn) roundTrip(ctx, up context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	ctx, done := joined(ctx, up)
	defer done()
	return failed(ctx, nc.FlushWithContext(ctx))
}

// joined returns ctx, ended also by the end of up.
func joined(ctx, up context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(up, func() { cancel(errLost) })
	return ctx, func() { stop(); cancel(nil) }
}

// failed gives an error of NATS its status.
func failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(context.Cause(ctx), errLost):
		return capability.Errorf(capability.Unavailable, "messaging: %w meanwhile", errLost)
	case errors.Is(err, nats.ErrTimeout):
		return capability.Errorf(capability.Timeout, "messaging: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return capability.FromError(err)
	case errors.Is(err, nats.ErrMaxPayload):
		return capability.Errorf(capability.Exhausted, "messaging: %w", err)
	case errors.Is(err, nats.ErrBadSubject):
		return capability.Errorf(capability.InvalidRequest, "messaging: %w", err)
	}
	return capability.Errorf(capability.Unavailable, "messaging: %w", err)
}

// Publish hands a message to the connection. It does not wait for the server: at most once is what is promised.
func (c *Conn) Publish(ctx context.Context, subject string, data []byte) error {
	nc, _, err := c.live()
	if err != nil {
		return err
	}
	return failed(ctx, nc.Publish(subject, data))
}

// Reply sends an answer, as Publish does.
func (c *Conn) Reply(ctx context.Context, to string, data []byte) error {
	return c.Publish(ctx, to, data)
}

// Request sends a message and waits for one answer. A connection that breaks meanwhile is Unavailable; whether the message came
// to anybody is then not known.
func (c *Conn) Request(ctx context.Context, subject string, data []byte) (capability.Message, error) {
	nc, up, err := c.live()
	if err != nil {
		return capability.Message{}, err
	}
	ctx, done := joined(ctx, up)
	defer done()
	m, err := nc.RequestWithContext(ctx, subject, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return capability.Message{}, capability.Errorf(capability.Unavailable, "nobody subscribes to %q", subject)
	case err != nil:
		return capability.Message{}, failed(ctx, err)
	case len(m.Data) > capability.MaxMessage: // of a backend that allows more
		return capability.Message{}, capability.Errorf(capability.Exhausted, "an answer of %d bytes: at most %d", len(m.Data), capability.MaxMessage)
	}
	return capability.Message{Subject: m.Subject, Data: m.Data}, nil
}

// Subscribe returns when the server knows of the subscription: what is published on it from then on is delivered. Other
// servers of the cluster hear of it a moment later.
func (c *Conn) Subscribe(ctx context.Context, subject, queue string, deliver func(capability.Message)) (capability.Subscription, error) {
	nc, up, err := c.live()
	if err != nil {
		return nil, err
	}
	sub := &subscription{conn: c, wild: capability.BeginsWild(subject), deliver: deliver}
	if queue == "" {
		sub.nats, err = nc.Subscribe(subject, sub.take)
	} else {
		sub.nats, err = nc.QueueSubscribe(subject, queueName(queue), sub.take)
	}
	if err == nil {
		err = sub.nats.SetPendingLimits(pendingMessages, pendingBytes)
	}
	if err != nil {
		return nil, failed(ctx, err)
	}
	if !c.keep(sub) {
		_ = sub.nats.Unsubscribe() // the connection is closed
		return nil, capability.Errorf(capability.Unavailable, "the messaging provider was stopped")
	}
	if err := c.roundTrip(ctx, up, nc); err != nil {
		_ = sub.Close() // err says more
		return nil, err
	}
	return sub, nil
}

// queueName returns a name that NATS takes, and another one for each name.
func queueName(name string) string { return url.QueryEscape(name) }

func (c *Conn) keep(sub *subscription) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.subs[sub] = struct{}{}
	return true
}

// Dropped returns how many messages were dropped since this process was too slow to look at them, or they were larger than a
// message may be.
func (c *Conn) Dropped() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.lost
	for sub := range c.subs {
		n += sub.dropped()
	}
	return n
}

// Close ends the connection and all subscriptions. Nothing is delivered once it has returned.
func (c *Conn) Close() {
	c.mu.Lock()
	c.closed = true
	c.down(errLost)
	subs, nc := c.subs, c.nats
	c.subs = nil
	c.mu.Unlock()
	c.first()
	for sub := range subs {
		sub.stop()
	}
	if nc != nil {
		nc.Close()
	}
}
