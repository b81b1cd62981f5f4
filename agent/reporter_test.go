package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

// electorate is a set of voters that a test changes.
type electorate struct {
	mu      sync.Mutex // guards what follows
	voters  []Voter
	changed chan struct{}
}

func newElectorate(voters ...Voter) *electorate {
	return &electorate{voters: voters, changed: make(chan struct{})}
}

func (e *electorate) Voters() []Voter {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.voters
}

func (e *electorate) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

func (e *electorate) Term() uint64 { return 1 }

func (e *electorate) set(voters ...Voter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.voters = voters
	close(e.changed)
	e.changed = make(chan struct{})
}

// receiver is a voter's side of the reports, on a real server.
type receiver struct {
	pb.UnimplementedControlPlaneServiceServer

	addr string

	mu       sync.Mutex // guards what follows
	known    *replica
	newest   int // the stream that counts
	streams  int // open ones
	beats    int
	breakIn  int  // break the stream after so many messages; 0 for never
	silent   bool // take everything and answer nothing
	stopping func()
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{known: newReplica(), addr: "127.0.0.1:0"}
	r.start(t)
	t.Cleanup(func() { r.stop() })
	return r
}

// start serves, on the same address as before if there was one.
func (r *receiver) start(t *testing.T) {
	t.Helper()
	var l net.Listener
	eventually(t, "listen on "+r.addr, func() (err error) {
		l, err = net.Listen("tcp", r.addr)
		return err
	})
	r.addr = l.Addr().String()
	server := rpc.NewServer(rpc.ServerConfig{})
	pb.RegisterControlPlaneServiceServer(server, r)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	r.stopping = func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	}
}

func (r *receiver) stop() {
	if r.stopping != nil {
		r.stopping()
		r.stopping = nil
	}
}

func (r *receiver) ReportStatus(stream grpc.BidiStreamingServer[pb.ReportStatusRequest, pb.ReportStatusResponse]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.newest++
	me := r.newest
	r.streams++
	r.known.filling = false
	ack := r.known.ack()
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.streams--
	}()
	if len(hello.GetInstances()) > 0 || hello.GetLoad() == nil {
		return fmt.Errorf("the hello is %v", hello)
	}
	for {
		if err := stream.Send(ack); err != nil {
			return err
		}
		for done := false; !done; {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			if ack, done, err = r.take(me, m); err != nil {
				return err
			}
		}
	}
}

func (r *receiver) take(stream int, m *pb.ReportStatusRequest) (ack *pb.ReportStatusResponse, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stream != r.newest {
		return nil, false, errors.New("there is a newer stream")
	}
	if r.breakIn > 0 {
		if r.breakIn--; r.breakIn == 0 {
			return nil, false, errors.New("broken by the test")
		}
	}
	if m.GetSeq() == m.GetAfterSeq() {
		r.beats++
	}
	done, err = r.known.apply(m)
	return r.known.ack(), done && !r.silent, err
}

// with calls f while nothing else looks at the receiver.
func (r *receiver) with(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *receiver) wantEqual(t *testing.T, f *facts) {
	t.Helper()
	eventually(t, "the voter's rows", func() (err error) {
		r.with(func() {
			if d := r.known.differs(f); d != "" {
				err = errors.New(d)
			}
		})
		return err
	})
}

// eventually waits until try returns no error. It polls, as what is waited for is on the other side
// of a connection.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// runAgent runs an agent until the end of the test.
func runAgent(t *testing.T, a *Agent) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the agent did not end")
		}
	})
}

// newReporter returns an agent that runs nothing but reports.
func newReporter(t *testing.T, voters VoterFinder) *Agent {
	t.Helper()
	peers := rpc.NewPeers()
	engine, err := wasm.New(context.Background(), wasm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(peers.Close(), engine.Close(context.Background())); err != nil {
			t.Errorf("close connections and engine: %v", err)
		}
	})
	a, err := New(Config{NodeID: "n1", NodeName: "n1"}, engine, nil, peers, voters)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func putSome(f *facts, n int) {
	for range n {
		id := fmt.Sprint(rand.IntN(200))
		old := f.get(id)
		if old != nil && rand.IntN(4) == 0 {
			f.remove(id, old.GetGeneration(), false, nil)
			continue
		}
		f.put(&pb.Instance{InstanceId: id, Revision: old.GetRevision() + 1, Status: pb.InstanceStatus(1 + rand.IntN(5))}, nil)
	}
}

func TestReportsReachEveryVoterAtOnce(t *testing.T) {
	one, two := newReceiver(t), newReceiver(t)
	a := newReporter(t, newElectorate(Voter{"v1", one.addr}, Voter{"v2", two.addr}))
	putSome(a.facts, 50)
	runAgent(t, a)
	one.wantEqual(t, a.facts)
	two.wantEqual(t, a.facts)

	a.facts.put(&pb.Instance{InstanceId: "now", Revision: 1}, nil)
	began := time.Now()
	one.wantEqual(t, a.facts)
	if took := time.Since(began); took > heartbeatEvery/2 {
		t.Fatalf("a change took %s to its voter: it waited for the heartbeat", took)
	}
	eventually(t, "heartbeats", func() error {
		var beats int
		one.with(func() { beats = one.beats })
		if beats < 1 {
			return fmt.Errorf("%d heartbeats", beats)
		}
		return nil
	})
}

// TestReportsSurviveAnyBreak breaks streams, drops the voter's memory and restarts its server, while
// the facts change without a pause.
func TestReportsSurviveAnyBreak(t *testing.T) {
	v := newReceiver(t)
	a := newReporter(t, newElectorate(Voter{"v1", v.addr}))
	runAgent(t, a)

	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				putSome(a.facts, 20)
			case <-stop:
				return
			}
		}
	})
	streams := 0
	for range 12 {
		v.with(func() { streams = v.newest })
		switch rand.IntN(4) {
		case 0:
			v.stop()
			v.start(t)
		case 1:
			v.with(func() { v.known = newReplica(); v.breakIn = 1 })
		default:
			v.with(func() { v.breakIn = 1 + rand.IntN(5) })
		}
		eventually(t, "the next stream", func() (err error) {
			v.with(func() {
				if v.newest == streams {
					err = fmt.Errorf("still stream %d", streams)
				}
			})
			return err
		})
	}
	close(stop)
	changes.Wait()
	v.wantEqual(t, a.facts)
}

func TestReportsFollowTheVoters(t *testing.T) {
	one, two := newReceiver(t), newReceiver(t)
	voters := newElectorate(Voter{"v1", one.addr}, Voter{"v3", ""})
	a := newReporter(t, voters)
	runAgent(t, a)
	one.wantEqual(t, a.facts)

	voters.set(Voter{"v2", two.addr})
	two.wantEqual(t, a.facts)
	eventually(t, "the end of the stream to who votes no more", func() (err error) {
		one.with(func() {
			if one.streams > 0 {
				err = fmt.Errorf("%d streams", one.streams)
			}
		})
		return err
	})
	putSome(a.facts, 3)
	two.wantEqual(t, a.facts)
}

func TestFlushWaitsForVotersThatListenAndForNoOther(t *testing.T) {
	v := newReceiver(t)
	a := newReporter(t, newElectorate(Voter{"v1", v.addr}, Voter{"v2", "127.0.0.1:1"}))
	runAgent(t, a)
	v.wantEqual(t, a.facts)
	for range 20 {
		putSome(a.facts, 10)
		a.reports.flush(t.Context())
		v.with(func() {
			if d := v.known.differs(a.facts); d != "" {
				t.Fatal(d)
			}
		})
	}
	v.with(func() { v.silent = true })
	putSome(a.facts, 10)
	began := time.Now()
	a.reports.flush(t.Context())
	if took := time.Since(began); took > 2*flushTimeout {
		t.Fatalf("waited %s for a voter that does not answer", took)
	}
}
