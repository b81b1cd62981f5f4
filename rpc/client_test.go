package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"
)

func TestRetryRepeatsUntilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		answers := []error{Errorf(NoLeader, "none"), Errorf(StaleLeader, "old"), status.Error(codes.Unavailable, "gone"), nil}
		calls := 0
		err := Retry(ctx, func(context.Context) error { calls++; return answers[calls-1] })
		if err != nil || calls != len(answers) {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

func TestRetryTellsWhatKeptItFromSucceeding(t *testing.T) {
	// waits ends like a call that the context cuts off, as gRPC reports it.
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	for _, test := range []struct {
		name string
		op   func(calls int) func(context.Context) error
		want Code
		says string
	}{
		{"between attempts", func(int) func(context.Context) error {
			return func(context.Context) error { return Errorf(NoLeader, "no leader is known") }
		}, NoLeader, "no leader is known"},
		{"in a later attempt", func(calls int) func(context.Context) error {
			if calls < 3 {
				return func(context.Context) error { return Errorf(NoLeader, "no leader is known") }
			}
			return waits
		}, NoLeader, "no leader is known"},
		{"in the only attempt", func(int) func(context.Context) error { return waits }, Timeout, "no answer in time: "},
		{"in the only attempt, raw", func(int) func(context.Context) error {
			return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}, Timeout, "no answer in time: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start, calls := time.Now(), 0
				err := Retry(ctx, func(ctx context.Context) error { calls++; return test.op(calls)(ctx) })
				if CodeOf(err) != test.want || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %s %v, want %s %q", CodeOf(err), err, test.want, test.says)
				}
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("it gave up after %v", took)
				}
				if got := FromError(err).Details["attempts"]; calls > 1 && got != fmt.Sprint(calls) {
					t.Errorf("it says %q attempts, there were %d", got, calls)
				}
			})
		})
	}
}

func TestRetryEndsAtOnceWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := Retry(ctx, func(context.Context) error { return Errorf(NoLeader, "none") })
		if took := time.Since(start); took != time.Second || CodeOf(err) != NoLeader {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestRetryLeavesOtherErrorsAlone(t *testing.T) {
	for code := range contract {
		want := Errorf(code, "x")
		if Retryable(want) {
			continue
		}
		calls := 0
		err := Retry(t.Context(), func(context.Context) error { calls++; return fmt.Errorf("start: %w", want) })
		if calls != 1 || !errors.Is(err, want) || CodeOf(err) != code {
			t.Errorf("%s: %d calls, %v", code, calls, err)
		}
	}
}

// A TIMEOUT of the cluster's own making, with time left, is news and no echo of the caller's deadline.
func TestRetryReportsTimeoutOfTheClusterItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		calls := 0
		err := Retry(ctx, func(context.Context) error {
			if calls++; calls == 1 {
				return Errorf(NoLeader, "none")
			}
			return Errorf(Timeout, "the module compiles too long")
		})
		if CodeOf(err) != Timeout || calls != 2 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

func TestRetryWaitsBetween25And500Milliseconds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		attempts := rapid.IntRange(2, 30).Draw(rt, "attempts")
		synctest.Test(t, func(t *testing.T) {
			var last time.Time
			calls := 0
			_ = Retry(t.Context(), func(context.Context) error {
				if wait := time.Since(last); calls > 0 && (wait < retryStart/2 || wait > 500*time.Millisecond) {
					rt.Errorf("attempt %d came after %v", calls, wait)
				}
				last = time.Now()
				if calls++; calls < attempts {
					return Errorf(NoLeader, "none")
				}
				return nil
			})
		})
	})
}

func TestPeersKeepOneConnectionPerAddress(t *testing.T) {
	noLeaks(t)
	p := startPort(t)
	serve(t, p, NewServer(ServerConfig{}))
	peers := NewPeers()
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			conn, err := peers.Conn(p.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			if err := healthy(t.Context(), conn); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	a, _ := peers.Conn(p.Addr().String())
	b, _ := peers.Conn(p.Addr().String())
	c, _ := peers.Conn("127.0.0.1:1")
	if a != b || a == c {
		t.Error("connections are not one per address")
	}
	if err := peers.Close(); err != nil {
		t.Error(err)
	}
	if _, err := peers.Conn(p.Addr().String()); !Retryable(err) {
		t.Errorf("after Close: %v", err)
	}
	if err := healthy(t.Context(), a); err == nil {
		t.Error("a closed connection serves")
	}
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	for _, addr := range []string{"", "host", "host:", "1:2:3", "http://x/"} {
		if _, err := Dial(addr); CodeOf(err) != InvalidRequest {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestClientFindsRestartedNodeWithinASecond(t *testing.T) {
	noLeaks(t)
	first, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr := first.Addr().String()
	_ = first.Close()
	conn := dial(t, addr)
	for range 20 {
		if err := healthy(t.Context(), conn); CodeOf(err) != CommunicationFailure || !strings.Contains(FromError(err).Message, "the node cannot be reached: dial tcp") {
			t.Fatalf("no node: %v", FromError(err))
		}
	}
	second, err := Listen(addr, nil)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	runPort(t, second)
	serve(t, second, NewServer(ServerConfig{}))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	if err := Retry(ctx, func(ctx context.Context) error { return healthy(ctx, conn) }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// idleConn is a connection that says what it does.
type idleConn struct {
	Conn

	state  connectivity.State
	closed bool
}

func (c *idleConn) GetState() connectivity.State { return c.state }
func (c *idleConn) Close() error                 { c.closed = true; return nil }
func (c *idleConn) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	if c.closed {
		return Errorf(CommunicationFailure, "closed")
	}
	return nil
}

func TestPeersForgetAddressesThatNothingUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialed := map[string]*idleConn{}
		peers := NewPeersOver(func(addr string) (Conn, error) {
			dialed[addr] = &idleConn{state: connectivity.Idle}
			return dialed[addr], nil
		})
		conn := func(addr string) grpc.ClientConnInterface {
			t.Helper()
			c, err := peers.Conn(addr)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		idle, _, called := conn("idle"), conn("streams"), conn("called")
		dialed["streams"].state = connectivity.Ready
		time.Sleep(peerKept - time.Second)
		if err := called.Invoke(t.Context(), "", nil, nil); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		conn("another")
		for addr, want := range map[string]bool{"idle": true, "streams": false, "called": false, "another": false} {
			if dialed[addr].closed != want {
				t.Errorf("%s: closed is %v", addr, dialed[addr].closed)
			}
		}
		if err := idle.Invoke(t.Context(), "", nil, nil); err != nil { // by whoever kept it
			t.Errorf("a connection that was forgotten is not made again: %v", err)
		}
		if err := peers.Close(); err != nil {
			t.Error(err)
		}
	})
}
