package sim

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// client is the name of whoever is no node: no way from or to it is ever cut.
const client = ""

// conn is what a node has of the way to another.
type conn struct {
	net  *network
	here *life // nil for a client
	way  way
}

var _ rpc.Conn = conn{}

// dial returns what rpc.NewPeersOver wants.
func (n *network) dial(here *life) func(addr string) (rpc.Conn, error) {
	return func(addr string) (rpc.Conn, error) { return conn{n, here, way{here.addr, addr}}, nil }
}

// about returns what instances a message is about, so that its fate does not depend on what others are about.
func about(m any) string {
	switch m := m.(type) {
	case interface{ GetInstanceIds() []string }:
		return strings.Join(m.GetInstanceIds(), " ")
	case interface{ GetRefs() []string }:
		return strings.Join(m.GetRefs(), " ")
	case interface{ GetOrders() []*pb.StartOrder }:
		return fmt.Sprint(m.GetOrders()[0].GetInstanceId(), m.GetOrders()[0].GetGeneration())
	case interface{ GetInstanceId() string }:
		return m.GetInstanceId()
	}
	return ""
}

// Close does nothing: wires end with nodes.
func (conn) Close() error { return nil }

// marshal is for messages of generated code; what forwarding passes on is one, too.
func marshal(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", m)
	}
	return proto.Marshal(p)
}

func unmarshal(b []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", m)
	}
	return proto.Unmarshal(b, p)
}

// serving is what the other side makes of a call's context once it is there: with its metadata, and the time that was left
// when it was sent.
func serving(ctx, there context.Context) (context.Context, context.CancelFunc) {
	if md, ok := metadata.FromOutgoingContext(ctx); ok {
		there = metadata.NewIncomingContext(there, md.Copy())
	}
	return context.WithCancel(there)
}

// arrived begins the time that a call was given.
func arrived(sctx context.Context, left time.Duration, bounded bool) (context.Context, context.CancelFunc) {
	if !bounded {
		return context.WithCancel(sctx)
	}
	return context.WithTimeout(sctx, left)
}

func timeLeft(ctx context.Context) (time.Duration, bool) {
	deadline, bounded := ctx.Deadline()
	return time.Until(deadline), bounded
}

// Invoke calls and waits for the answer.
func (c conn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	w, err := c.net.connect(ctx, c.here, c.way)
	if err != nil {
		return statusOf(err)
	}
	raw, err := marshal(args)
	if err != nil {
		return err
	}
	f := c.net.fate(c.way, method+about(args))
	sctx, cancel := serving(ctx, w.there.ctx)
	left, bounded := timeLeft(ctx)
	type answer struct {
		raw []byte
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		defer cancel()
		if err := w.carry(w.from, w.to, f.there); err != nil || f.losesRequest {
			w.sever()
			answered <- answer{nil, errBroken}
			return
		}
		sctx, done := arrived(sctx, left, bounded)
		defer done()
		resp, err := w.there.serve(sctx, method, raw)
		switch {
		case f.losesAnswer:
			w.sever()
		case !c.net.lives(w.there): // who has ended answers nothing
			<-w.broken
		}
		if broken := w.carry(w.to, w.from, f.back); broken != nil {
			answered <- answer{nil, errBroken}
			return
		}
		answered <- answer{resp, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return statusOf(a.err)
		}
		return unmarshal(a.raw, reply)
	case <-ctx.Done(): // the other side hears of it later, if it is reached
		go func() {
			if w.carry(w.from, w.to, f.back) != nil {
				time.AfterFunc(breaksAfter, cancel) // its own keepalive
				return
			}
			cancel()
		}()
		return statusOf(context.Cause(ctx))
	case <-w.broken:
		time.AfterFunc(f.back, cancel)
		return errBroken
	}
}

// NewStream begins a call that goes on.
func (c conn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	w, err := c.net.connect(ctx, c.here, c.way)
	if err != nil {
		return nil, statusOf(err)
	}
	f := c.net.fate(c.way, method)
	sctx, cancel := serving(ctx, w.there.ctx)
	left, bounded := timeLeft(ctx)
	s := &stream{
		wire: w, self: c.here, ctx: ctx,
		out: &queue{wire: w, from: w.from, to: w.to, kind: method + ">", more: make(chan struct{})},
		in:  &queue{wire: w, from: w.to, to: w.from, kind: method + "<", more: make(chan struct{})},
	}
	context.AfterFunc(ctx, func() { // the other side hears of it later, if it is reached
		if w.carry(w.from, w.to, f.back) != nil {
			time.AfterFunc(breaksAfter, cancel)
			return
		}
		cancel()
	})
	go func() {
		defer cancel()
		if w.carry(w.from, w.to, f.there) != nil {
			return
		}
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-w.broken:
				cancel()
			case <-stop:
			}
		}()
		sctx, done := arrived(sctx, left, bounded)
		defer done()
		err := w.there.serveStream(method, &served{stream: &stream{wire: w, self: w.there, ctx: sctx, out: s.in, in: s.out}})
		if err == nil {
			err = io.EOF
		}
		if c.net.lives(w.there) {
			s.in.end(err)
		}
	}()
	return s, nil
}

// queue is one direction of a stream. What is put in comes out in order, each after its delay.
type queue struct {
	wire     *wire
	from, to string
	kind     string

	mu    sync.Mutex // guards what follows
	items []item
	last  time.Time // when the last of them arrives
	ended error     // follows the last item; io.EOF for a good end
	more  chan struct{}
}

type item struct {
	raw     []byte
	arrives time.Time
}

func (q *queue) put(raw []byte) {
	delay := q.wire.net.delay(q.wire.net.chance(way{q.from, q.to}, q.kind))
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = later(q.last, time.Now().Add(delay))
	q.items = append(q.items, item{raw, q.last})
	q.wakeLocked()
}

func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended == nil {
		q.ended = err
		q.wakeLocked()
	}
}

func (q *queue) wakeLocked() {
	close(q.more)
	q.more = make(chan struct{})
}

func (q *queue) take(ctx context.Context) ([]byte, error) {
	for {
		q.mu.Lock()
		more := q.more
		var first item
		has, ended := len(q.items) > 0, q.ended
		if has {
			first = q.items[0]
		}
		q.mu.Unlock()
		switch {
		case has:
			if err := q.wait(ctx, time.Until(first.arrives)); err != nil {
				return nil, err
			}
			q.mu.Lock()
			q.items = slices.Delete(q.items, 0, 1)
			q.mu.Unlock()
			return first.raw, nil
		case ended != nil:
			if err := q.wait(ctx, 100*time.Microsecond); err != nil {
				return nil, err
			}
			return nil, ended
		}
		select {
		case <-more:
		case <-q.wire.broken:
			return nil, errBroken
		case <-ctx.Done():
			return nil, statusOf(context.Cause(ctx))
		}
	}
}

// wait waits until a message is there.
func (q *queue) wait(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(max(delay, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-q.wire.broken:
		return errBroken
	case <-ctx.Done():
		return statusOf(context.Cause(ctx))
	}
	for {
		n := q.wire.net
		n.mu.Lock()
		open, changed := n.openLocked(q.from, q.to), n.changed
		n.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-q.wire.broken:
			return errBroken
		case <-ctx.Done():
			return statusOf(context.Cause(ctx))
		}
	}
}

// stream is one end of a stream.
type stream struct {
	wire *wire
	self *life
	ctx  context.Context //nolint:containedctx // the interface asks for it
	out  *queue
	in   *queue
}

func (s *stream) Context() context.Context   { return s.ctx }
func (*stream) Header() (metadata.MD, error) { return metadata.MD{}, nil }
func (*stream) Trailer() metadata.MD         { return metadata.MD{} }
func (s *stream) CloseSend() error           { s.out.end(io.EOF); return nil }
func (s *stream) RecvMsg(m any) error        { return s.receive(m) }
func (s *stream) receive(m any) error {
	raw, err := s.in.take(s.ctx)
	if err != nil {
		return err
	}
	return unmarshal(raw, m)
}

func (s *stream) SendMsg(m any) error {
	select {
	case <-s.wire.broken:
		return io.EOF // receiving tells why
	case <-s.ctx.Done():
		return io.EOF
	default:
	}
	raw, err := marshal(m)
	if err != nil {
		return err
	}
	if s.wire.net.lives(s.self) {
		s.out.put(raw)
	}
	return nil
}

// served is the end of a stream that serves.
type served struct{ *stream }

func (served) SetHeader(metadata.MD) error  { return nil }
func (served) SendHeader(metadata.MD) error { return nil }
func (served) SetTrailer(metadata.MD)       {}

func (s served) SendMsg(m any) error {
	if err := s.stream.SendMsg(m); err != nil {
		return status.Error(codes.Unavailable, "transport is closing")
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
