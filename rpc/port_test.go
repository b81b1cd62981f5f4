package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestRaftAndGRPCShareOnePort(t *testing.T) {
	noLeaks(t)
	a, b := startPort(t), startPort(t)
	serve(t, b, NewServer(ServerConfig{}))
	from := transport(t, a.RaftStream(a.Addr().String()))
	_ = transport(t, b.RaftStream(b.Addr().String()))

	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 50 {
				if err := appendEntries(from, b); err != nil {
					t.Errorf("raft: %v", err)
				}
			}
		})
		work.Go(func() {
			for range 5 {
				conn, err := Dial(b.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					if err := healthy(t.Context(), conn); err != nil {
						t.Errorf("gRPC: %v", err)
					}
				}
				_ = conn.Close()
			}
		})
	}
	work.Wait()
}

func TestCutBreaksRaftAtOnceAndGRPCGoesOn(t *testing.T) {
	noLeaks(t)
	a, b := startPort(t), startPort(t)
	serve(t, b, NewServer(ServerConfig{}))
	out, in := a.RaftStream(a.Addr().String()), b.RaftStream("b.example:7401")
	fromA, fromB := transport(t, out), transport(t, in)
	conn := dial(t, b.Addr().String())
	if got := fromB.LocalAddr(); got != "b.example:7401" {
		t.Errorf("raft advertises %s", got)
	}

	pipeline, err := fromA.AppendEntriesPipeline("peer", raft.ServerAddress(b.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer pipeline.Close()
	works := func(want bool) {
		t.Helper()
		if err := appendEntries(fromA, b); (err == nil) != want {
			t.Errorf("raft to the node: %v", err)
		}
		if err := appendEntries(fromB, a); (err == nil) != want {
			t.Errorf("raft from the node: %v", err)
		}
		if err := healthy(t.Context(), conn); err != nil {
			t.Errorf("gRPC: %v", err)
		}
	}
	works(true)
	in.Cut()
	start := time.Now()
	works(false)
	if took := time.Since(start); took > time.Second {
		t.Errorf("raft needed %v to notice", took)
	}
	if _, err := in.Dial(raft.ServerAddress(a.Addr().String()), time.Second); !errors.Is(err, ErrCut) {
		t.Errorf("dial while cut: %v", err)
	}
	in.Restore()
	// The first call may find a connection in Raft's pool that was cut.
	for range 3 {
		_, _ = appendEntries(fromA, b), appendEntries(fromB, a)
	}
	works(true)
}

func TestClosingRaftsTransportEndsWhatItAccepted(t *testing.T) {
	noLeaks(t)
	a, b := startPort(t), startPort(t)
	out, in := a.RaftStream(a.Addr().String()), b.RaftStream(b.Addr().String())
	from, to := transport(t, out), transport(t, in)
	if err := appendEntries(from, b); err != nil {
		t.Fatal(err)
	}
	idle, err := out.Dial(raft.ServerAddress(b.Addr().String()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the idle connection to be accepted", func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.conns) == 2
	})
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("an idle connection stayed open")
	}
	if err := appendEntries(from, b); err == nil {
		t.Error("a closed transport answered")
	}
	_ = transport(t, b.RaftStream(b.Addr().String()))
	if err := appendEntries(from, b); err != nil {
		t.Errorf("the stream that came after: %v", err)
	}
}

func TestRaftConnectionWithoutRaftIsClosed(t *testing.T) {
	noLeaks(t)
	p := startPort(t)
	conn := say(t, p, "R")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("it stayed open")
	}
}

func TestTwoRaftGroupsShareThePortAndNothingElse(t *testing.T) {
	noLeaks(t)
	a, b := startPort(t), startPort(t)
	metadata, keys := transport(t, a.RaftStream("x:1")), transport(t, a.ReplicaStream("x:1"))
	in := b.ReplicaStream(b.Addr().String())
	_ = transport(t, in)
	if err := appendEntries(keys, b); err != nil {
		t.Errorf("between two of the keys' group: %v", err)
	}
	if err := appendEntries(metadata, b); err == nil {
		t.Error("the keys' group took what the metadata's said")
	}
	_ = transport(t, b.RaftStream(b.Addr().String()))
	in.Cut()
	if err := appendEntries(metadata, b); err != nil {
		t.Errorf("between two of the metadata's group, the other one being cut: %v", err)
	}
	if err := appendEntries(keys, b); err == nil {
		t.Error("the keys' group answered while it was cut")
	}
}

func TestStrangersAreClosed(t *testing.T) {
	noLeaks(t)
	var log syncBuffer
	p, err := Listen("127.0.0.1:0", slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	runPort(t, p)
	for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "\x00", "\xff"} {
		conn := say(t, p, hello)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q was answered", hello)
		}
	}
	if !bytes.Contains(log.Bytes(), []byte("neither gRPC nor Raft")) || !bytes.Contains(log.Bytes(), []byte("first_byte=22")) {
		t.Errorf("log: %s", log.Bytes())
	}
}

func TestSilentConnectionIsClosedAfterItsTime(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	synctest.Test(t, func(t *testing.T) {
		p := newPort(ln, nil)
		ours, theirs := net.Pipe()
		start := time.Now()
		p.decide(ours)
		if took := time.Since(start); took != firstByteTimeout {
			t.Errorf("it was kept for %v", took)
		}
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the caller saw %v", err)
		}
	})
}

func TestConnectionThatSaidWhatItIsMayPause(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, hello := range []string{"P", "R", "K"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPort(ln, nil)
			raft, replica := p.RaftStream("x:1"), p.ReplicaStream("x:1")
			ours, theirs := net.Pipe()
			go p.decide(ours)
			go func() {
				_, _ = theirs.Write([]byte(hello))
				time.Sleep(time.Hour) // of the bubble's time
				_, _ = theirs.Write([]byte("x"))
				_ = theirs.Close()
			}()
			listener := map[string]net.Listener{"P": p.GRPC(), "R": raft, "K": replica}[hello]
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.HasSuffix(got, []byte("x")) {
				t.Errorf("%s: read %q, %v", hello, got, err)
			}
		})
	}
}

func TestClosingThePortEndsSilentConnections(t *testing.T) {
	noLeaks(t)
	p, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context()) }()
	conn := say(t, p, "")
	untaken := say(t, p, "PRI") // no server accepts it
	waitFor(t, "both to be accepted", func() bool { return len(p.undecided) == 2 })
	start := time.Now()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v", took)
	}
	for _, c := range []net.Conn{conn, untaken} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection stayed open")
		}
	}
	if _, err := p.GRPC().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := p.RaftStream("x:1").Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Raft's Accept: %v", err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Errorf("Run after Close: %v", err)
	}
}

// shortOfDescriptors is a listener whose first accepts fail as on a host that has run out.
type shortOfDescriptors struct {
	net.Listener

	left atomic.Int32
}

func (l *shortOfDescriptors) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestPortOutlivesAcceptErrors(t *testing.T) {
	noLeaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	short := &shortOfDescriptors{Listener: ln}
	short.left.Store(4)
	p := newPort(short, nil)
	runPort(t, p)
	serve(t, p, NewServer(ServerConfig{}))
	if err := healthy(t.Context(), dial(t, p.Addr().String())); err != nil {
		t.Errorf("gRPC: %v", err)
	}
}

func TestPortUnderHammer(t *testing.T) {
	noLeaks(t)
	a, b := startPort(t), startPort(t)
	serve(t, b, NewServer(ServerConfig{}))
	out, in := a.RaftStream(a.Addr().String()), b.RaftStream(b.Addr().String())
	from := transport(t, out)
	_ = transport(t, in)
	conn := dial(t, b.Addr().String())

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var work sync.WaitGroup
	var served, broke atomic.Int64
	for range 4 {
		work.Go(func() {
			for ctx.Err() == nil {
				if appendEntries(from, b) == nil {
					served.Add(1)
				} else {
					broke.Add(1)
				}
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				if err := healthy(ctx, conn); err != nil && !ranOut(ctx, err) {
					t.Errorf("gRPC: %v", err)
				}
			}
		})
		work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c, err := net.Dial("tcp", b.Addr().String())
				if err != nil {
					continue
				}
				_, _ = c.Write([]byte{byte(i)})
				_ = c.Close()
			}
		})
	}
	work.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			in.Cut()
			in.Restore()
		}
	})
	work.Wait()
	if served.Load() == 0 || broke.Load() == 0 {
		t.Errorf("raft: %d calls went through and %d broke; want some of both", served.Load(), broke.Load())
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if n := len(in.conns); n > 100 {
		t.Errorf("%d connections are remembered", n)
	}
}

func FuzzFirstByte(f *testing.F) {
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Add([]byte("P"))
	f.Add([]byte("R\x00\x01"))
	f.Add([]byte("K\x00\x01"))
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = ln.Close() })
	f.Fuzz(func(t *testing.T, sent []byte) {
		p := newPort(ln, nil)
		stream, replica := p.RaftStream("x:1"), p.ReplicaStream("x:1")
		ours, theirs := net.Pipe()
		routed := make(chan struct{})
		var work sync.WaitGroup
		work.Go(func() {
			_, _ = theirs.Write(sent)
			if len(sent) > 0 {
				<-routed // unlike a socket, a pipe refuses a deadline once its other end is closed
			}
			_ = theirs.Close()
		})
		decided := make(chan struct{})
		go func() {
			defer close(decided)
			p.decide(ours)
		}()
		var got, want []byte
		select {
		case c := <-p.grpc.conns:
			close(routed)
			got, want = drain(t, c), sent
			if sent[0] != 'P' {
				t.Errorf("%q went to gRPC", sent)
			}
		case c := <-stream.lane.conns:
			close(routed)
			got, want = drain(t, c), sent[1:]
			if sent[0] != 'R' {
				t.Errorf("%q went to Raft", sent)
			}
		case c := <-replica.lane.conns:
			close(routed)
			got, want = drain(t, c), sent[1:]
			if sent[0] != 'K' {
				t.Errorf("%q went to the replicas", sent)
			}
		case <-decided:
			close(routed)
			if len(sent) > 0 && bytes.IndexByte([]byte("PRK"), sent[0]) >= 0 {
				t.Errorf("%q was closed", sent)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("sent %q, read %q", sent, got)
		}
		<-decided
		work.Wait()
	})
}

func drain(t *testing.T, c net.Conn) []byte {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	_ = c.Close()
	return b
}
