package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/vitals"
)

const (
	// heartbeatEvery is how often a voter hears of an agent at the least, and how it fares. Changes are told at once, and
	// a broken connection is noticed without it.
	heartbeatEvery = vitals.Period
	// ackTimeout is how long a voter may take to answer a hello, or to apply what it was sent. A full
	// report of 10,000 instances takes it well below a second; after that the stream is given up.
	ackTimeout = 10 * time.Second
	// A voter that can't be reached is tried again after a pause that doubles, with half of it left
	// to chance: a thousand agents must not come back to a new voter at the same instant.
	firstRedial = 100 * time.Millisecond
	lastRedial  = time.Second
	// flushTimeout is how long an exit waits for the voters to hear of the last changes.
	flushTimeout = time.Second
)

// reports keeps one report stream to each voter.
type reports struct {
	agent *Agent

	mu      sync.Mutex // guards what follows
	streams map[Voter]*reportStream
}

// reportStream is one goroutine that reports to one voter, over as many connections as it takes.
type reportStream struct {
	agent  *Agent
	voter  Voter
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex    // guards what follows
	open  bool          // the voter has answered a hello
	seen  uint64        // what it has acknowledged
	heard time.Time     // when it answered last, or when it was first tried
	more  chan struct{} // closed and replaced when one of these changes
}

func newReports(a *Agent) *reports {
	return &reports{agent: a, streams: map[Voter]*reportStream{}}
}

// run reports to whoever is a voter, until ctx ends and all streams with it.
func (r *reports) run(ctx context.Context) error {
	defer r.follow(ctx, nil)
	for {
		changed := r.agent.voters.Changed()
		r.follow(ctx, r.agent.voters.Voters())
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow makes the streams be those to the given voters; it waits for the end of those it ends.
func (r *reports) follow(ctx context.Context, voters []Voter) {
	wanted := map[Voter]bool{}
	for _, v := range voters {
		if v.Addr != "" {
			wanted[v] = true
		}
	}
	r.mu.Lock()
	var ended []*reportStream
	for v, s := range r.streams {
		if !wanted[v] {
			s.cancel()
			ended = append(ended, s)
			delete(r.streams, v)
		}
	}
	for v := range wanted {
		if r.streams[v] == nil {
			r.streams[v] = r.agent.startReportStream(ctx, v)
		}
	}
	r.mu.Unlock()
	for _, s := range ended {
		<-s.done
	}
}

// flush waits until the voters that listen have acknowledged everything so far, for a moment at most.
func (r *reports) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	r.mu.Lock()
	streams := make([]*reportStream, 0, len(r.streams))
	for _, s := range r.streams {
		streams = append(streams, s)
	}
	r.mu.Unlock()
	seq := r.agent.facts.position()
	for _, s := range streams {
		s.waitSeen(ctx, seq)
	}
}

func (a *Agent) startReportStream(ctx context.Context, v Voter) *reportStream {
	ctx, cancel := context.WithCancel(ctx)
	s := &reportStream{agent: a, voter: v, cancel: cancel, done: make(chan struct{}), more: make(chan struct{}), heard: time.Now()}
	go func() {
		defer close(s.done)
		s.run(ctx)
	}()
	return s
}

// run reports until ctx ends, from connection to connection.
func (s *reportStream) run(ctx context.Context) {
	redial := firstRedial
	for failures := 0; ; {
		greeted, err := s.report(ctx)
		s.note(false, 0)
		if ctx.Err() != nil {
			return
		}
		s.agent.metrics.broken.Inc()
		if greeted {
			redial, failures = firstRedial, 0
		}
		if failures++; failures == 3 { // once is a restart or a change of voters; and say it once
			s.agent.log.WarnContext(ctx, "a voter does not take reports; trying on", "peer_id", s.voter.NodeID, "addr", s.voter.Addr, "err", err)
		} else {
			s.agent.log.DebugContext(ctx, "a report stream broke", "peer_id", s.voter.NodeID, "addr", s.voter.Addr, "err", err)
		}
		if !pause(ctx, redial/2+rand.N(redial/2)) { //nolint:gosec // jitter is no secret
			return
		}
		redial = min(2*redial, lastRedial)
	}
}

// report reports over one stream until it breaks, and says whether the voter ever answered.
func (s *reportStream) report(ctx context.Context) (greeted bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := s.agent.peers.Conn(s.voter.Addr)
	if err != nil {
		return false, err
	}
	patience := time.AfterFunc(ackTimeout, func() { cancel(errNoAck) })
	defer patience.Stop()
	stream, err := pb.NewControlPlaneServiceClient(conn).ReportStatus(ctx)
	if err != nil {
		return false, causeOr(ctx, err)
	}
	facts := s.agent.facts
	sess := &session{nodeID: s.agent.cfg.NodeID, bootID: s.agent.bootID, most: maxReportRecords}
	if err := s.send(stream, sess.hello(facts.position(), s.agent.vitals())); err != nil && !errors.Is(err, io.EOF) {
		return false, causeOr(ctx, err)
	}
	ack, err := stream.Recv() // has the reason, if Send ended with EOF
	if err != nil {
		return false, causeOr(ctx, err)
	}
	patience.Stop()
	sess.greeted(ack)
	s.note(true, sess.seen)

	in := receive(ctx, stream)
	defer func() {
		cancel(nil)
		<-in.done
	}()
	return true, s.converse(ctx, stream, sess, in, patience)
}

// converse goes on with a stream whose hello was answered, until it breaks.
func (s *reportStream) converse(ctx context.Context, stream reportClient, sess *session, in incoming, patience *time.Timer) error {
	facts, told := s.agent.facts, toldUsages{}
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	for {
		for _, m := range sess.next(facts) {
			patience.Reset(ackTimeout)
			if err := s.send(stream, m); err != nil {
				return in.reason(ctx, err)
			}
		}
		var changed <-chan struct{}
		if !sess.waits {
			if changed = facts.changed(sess.told); changed == nil { // already
				continue
			}
		}
		select {
		case <-changed:
		case ack := <-in.acks:
			if err := sess.acked(ack); err != nil {
				return err
			}
			if !sess.waits {
				patience.Stop()
			}
			s.note(true, sess.seen)
		case <-heartbeat.C:
			for _, m := range sess.heartbeat(s.agent.vitals(), told.news(s.agent.running())) {
				if !sess.waits { // else it runs already
					patience.Reset(ackTimeout)
				}
				if err := s.send(stream, m); err != nil {
					return in.reason(ctx, err)
				}
			}
			if !sess.waits {
				patience.Stop()
			}
		case err := <-in.broken:
			return causeOr(ctx, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send sends one message, and counts it.
func (s *reportStream) send(stream reportClient, m *pb.ReportStatusRequest) error {
	s.agent.metrics.reports.Inc()
	s.agent.metrics.reportBytes.Add(float64(proto.Size(m)))
	if m.GetFull() {
		s.agent.metrics.fullReports.Inc()
	}
	return stream.Send(m)
}

// errNoAck is why a stream is given up whose voter does not answer.
var errNoAck = fmt.Errorf("no acknowledgement for %s", ackTimeout)

type reportClient = grpc.BidiStreamingClient[pb.ReportStatusRequest, pb.ReportStatusResponse]

// incoming is what a goroutine receives from a stream.
type incoming struct {
	acks   chan *pb.ReportStatusResponse
	broken chan error    // why the stream ended
	done   chan struct{} // closed when the goroutine has ended
}

func receive(ctx context.Context, stream reportClient) incoming {
	in := incoming{make(chan *pb.ReportStatusResponse), make(chan error, 1), make(chan struct{})}
	go func() {
		defer close(in.done)
		for {
			ack, err := stream.Recv()
			if err != nil {
				in.broken <- err
				return
			}
			select {
			case in.acks <- ack:
			case <-ctx.Done():
				return
			}
		}
	}()
	return in
}

// reason is why Send returned err: with EOF, the receiving side knows.
func (in incoming) reason(ctx context.Context, err error) error {
	if !errors.Is(err, io.EOF) {
		return causeOr(ctx, err)
	}
	for {
		select {
		case <-in.acks: // too late to matter
		case err := <-in.broken:
			return causeOr(ctx, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// note remembers how far the voter is, for those who wait.
func (s *reportStream) note(open bool, seen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.heard = time.Now()
	}
	if s.open == open && s.seen == seen {
		return
	}
	s.open, s.seen = open, seen
	close(s.more)
	s.more = make(chan struct{})
}

// waitSeen waits until the voter has everything up to seq, or can't be reached, or ctx ends.
func (s *reportStream) waitSeen(ctx context.Context, seq uint64) {
	for {
		s.mu.Lock()
		over, more := !s.open || s.seen >= seq, s.more
		s.mu.Unlock()
		if over {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}
