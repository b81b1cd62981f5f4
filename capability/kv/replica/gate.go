package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// helloTimeout is how long a peer may take to say of which generation it is.
const helloTimeout = 5 * time.Second

// maxGreeting is how many connections may be between accept and their hello. More wait.
const maxGreeting = 256

// What a connection is for.
const (
	forRaft byte = 'R'
	forAsk  byte = 'A' // the caller asks, again and again, in which term the other one is
)

// identity names one founding of the group. Traffic passes only between nodes of the same one: else two returning
// voters of a group that was given up would elect a leader, to whom those of the new one would bow.
type identity struct {
	Generation uint64 `json:"generation"`
	Founder    string `json:"founder"`
}

// hello is what a node says first: a mark, the generation, the founder, and what the connection is for.
func (i identity) hello(purpose byte) []byte {
	raw := binary.BigEndian.AppendUint64([]byte{'G'}, i.Generation)
	raw = append(raw, byte(len(i.Founder)))
	raw = append(raw, i.Founder...)
	return append(raw, purpose)
}

// gate is a stream layer that lets only nodes of the same founding through, and answers those who ask.
type gate struct {
	StreamLayer

	id     identity
	answer atomic.Pointer[func() standing] // nil until Raft runs
	log    *slog.Logger

	conns    chan net.Conn // unbuffered: Raft's
	done     chan struct{}
	greeting chan struct{} // a slot for each connection before its hello
	work     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	asking map[net.Conn]struct{}
	closed bool
}

// standing is what a replica says of itself.
type standing struct{ Term, LastIndex uint64 }

func newGate(stream StreamLayer, id identity, log *slog.Logger) *gate {
	g := &gate{
		StreamLayer: stream, id: id, log: log,
		conns: make(chan net.Conn), done: make(chan struct{}),
		greeting: make(chan struct{}, maxGreeting), asking: map[net.Conn]struct{}{},
	}
	g.work.Go(g.accept)
	return g
}

// Dial connects to a peer's Raft.
func (g *gate) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return g.dial(string(address), forRaft, timeout)
}

func (g *gate) dial(address string, purpose byte, timeout time.Duration) (net.Conn, error) {
	conn, err := g.StreamLayer.Dial(raft.ServerAddress(address), timeout)
	if err != nil {
		return nil, err
	}
	err = conn.SetWriteDeadline(time.Now().Add(timeout))
	if err == nil {
		_, err = conn.Write(g.id.hello(purpose))
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("replica at %s: %w", address, err), conn.Close())
	}
	return conn, nil
}

// Accept waits for the next connection of a peer's Raft.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case conn := <-g.conns:
		return conn, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Close ends all connections.
func (g *gate) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	for conn := range g.asking {
		_ = conn.Close() // its reader sees it
	}
	g.mu.Unlock()
	close(g.done)
	err := g.StreamLayer.Close()
	g.work.Wait()
	return err
}

func (g *gate) accept() {
	for {
		conn, err := g.StreamLayer.Accept()
		if err != nil {
			return // the stream is closed; nothing else ends it
		}
		select {
		case g.greeting <- struct{}{}:
		case <-g.done:
			_ = conn.Close()
			return
		}
		g.work.Go(func() { g.greet(conn) })
	}
}

// greet reads what a peer says first, and leads it to where it wants to go.
func (g *gate) greet(conn net.Conn) {
	purpose, err := g.readHello(conn)
	<-g.greeting
	switch {
	case err != nil:
		g.log.Debug("a replica's connection was refused", "addr", conn.RemoteAddr().String(), "err", err)
	case purpose == forAsk:
		g.serve(conn)
	case purpose == forRaft:
		select {
		case g.conns <- conn:
			return
		case <-g.done:
		}
	}
	_ = conn.Close()
}

func (g *gate) readHello(conn net.Conn) (purpose byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, err
	}
	ours := g.id.hello(0)
	theirs := make([]byte, len(ours))
	const founderAt = 1 + 8
	if _, err := io.ReadFull(conn, theirs[:founderAt+1]); err != nil {
		return 0, err
	}
	if string(theirs[:founderAt+1]) != string(ours[:founderAt+1]) {
		return 0, fmt.Errorf("it begins with %x, and this node is of %+v", theirs[:founderAt+1], g.id)
	}
	if _, err := io.ReadFull(conn, theirs[founderAt+1:]); err != nil {
		return 0, err
	}
	last := len(theirs) - 1
	if string(theirs[:last]) != string(ours[:last]) {
		return 0, fmt.Errorf("its group was founded by %q, and this node is of %+v", theirs[founderAt+1:last], g.id)
	}
	return theirs[last], conn.SetReadDeadline(time.Time{})
}

// A question is one byte, an answer the term and the last index.
const (
	question   = '?'
	answerSize = 16
)

// serve answers a peer until it goes.
func (g *gate) serve(conn net.Conn) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.asking[conn] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.asking, conn)
	}()
	var asked [1]byte
	for {
		if _, err := io.ReadFull(conn, asked[:]); err != nil || asked[0] != question {
			return
		}
		answer := g.answer.Load()
		if answer == nil {
			return
		}
		s := (*answer)()
		raw := binary.BigEndian.AppendUint64(make([]byte, 0, answerSize), s.Term)
		if _, err := conn.Write(binary.BigEndian.AppendUint64(raw, s.LastIndex)); err != nil {
			return
		}
	}
}

// asker asks one peer, over one connection that it keeps.
type asker struct {
	mu    sync.Mutex // held while it asks, as one answer follows one question
	conn  net.Conn
	tried time.Time // when the last attempt to connect failed
}

// redialRest is how long a peer that could not be reached is left alone, however many readers there are.
const redialRest = 20 * time.Millisecond

var errBusy = errors.New("it is being asked already")

// ask returns what a peer says of itself now. It never waits for another one who asks.
func (a *asker) ask(g *gate, address string, timeout time.Duration) (standing, error) {
	if !a.mu.TryLock() {
		return standing{}, errBusy
	}
	defer a.mu.Unlock()
	kept := a.conn != nil
	s, err := a.askLocked(g, address, timeout)
	if err != nil && kept && !isTimeout(err) { // the peer may have restarted since
		s, err = a.askLocked(g, address, timeout)
	}
	return s, err
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func (a *asker) askLocked(g *gate, address string, timeout time.Duration) (s standing, err error) {
	deadline := time.Now().Add(timeout)
	if a.conn == nil {
		switch {
		case address == "":
			return s, errors.New("nobody knows its address")
		case time.Since(a.tried) < redialRest:
			return s, errors.New("it could not be reached a moment ago")
		}
		if a.conn, err = g.dial(address, forAsk, timeout); err != nil {
			a.conn, a.tried = nil, time.Now()
			return s, err
		}
	}
	// An answer that came late would be taken for that to the next question: so none is waited for.
	defer func() {
		if err != nil {
			_ = a.conn.Close()
			a.conn = nil
		}
	}()
	if err := a.conn.SetDeadline(deadline); err != nil {
		return s, err
	}
	if _, err := a.conn.Write([]byte{question}); err != nil {
		return s, err
	}
	var raw [answerSize]byte
	if _, err := io.ReadFull(a.conn, raw[:]); err != nil {
		return s, err
	}
	return standing{Term: binary.BigEndian.Uint64(raw[:]), LastIndex: binary.BigEndian.Uint64(raw[8:])}, nil
}

func (a *asker) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}
