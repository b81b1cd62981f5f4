package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// shownLines is how many of the newest lines of an output the page begins with.
	shownLines = 200
	// gatherLines is how long lines are gathered that come one after the other: a browser takes a few batches
	// a second and not thousands of lines.
	gatherLines = 100 * time.Millisecond
	// mostLines is how many of those are shown; of a flood the newest.
	mostLines = 400
	// followLogAgain is the wait before an output that broke off or ended is asked for again: the instance may
	// be moved, or start again.
	followLogAgain = 2 * time.Second
)

// logLine is a line of output, as the page shows it.
type logLine struct {
	Seq    uint64     `json:"seq"`
	Time   *time.Time `json:"time"`
	Stream string     `json:"stream"`
	Text   string     `json:"text"`
}

// Clock is the time of day, as the page writes it.
func (l logLine) Clock() string {
	if l.Time == nil {
		return ""
	}
	return l.Time.UTC().Format("15:04:05.000")
}

func lineOf(e *pb.LogEntry) logLine {
	shape := api.FromLogEntry(e)
	return logLine{shape.Seq, shape.Time, shape.Stream, plain(string(e.GetLine()))}
}

// logShown is the end of an output at the first paint.
type logShown struct {
	Ref     string // the instance's
	Lines   []logLine
	Problem string
}

// Most is how many lines are shown at first.
func (*logShown) Most() int { return shownLines }

// logNews is what an open page is told of an output: that it begins, or lines.
type logNews struct {
	begins *logBegins
	lines  []logLine
}

// logBegins names whose output follows. Lines count from 1 within the instance's life on its node, so with
// the same words as before the page drops those that it has.
type logBegins struct {
	Node       string `json:"node"`
	Generation uint64 `json:"generation"`
}

// recentLog returns the newest lines of an instance's output.
func (s *Server) recentLog(ctx context.Context, ref string) *logShown {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	shown := &logShown{Ref: ref}
	err := s.readLog(ctx, &pb.FollowLogsRequest{Ref: ref, Tail: shownLines}, func(some []*pb.LogEntry) error {
		for _, e := range some {
			shown.Lines = append(shown.Lines, lineOf(e))
		}
		return nil
	})
	if err != nil {
		shown.Problem = api.FromError(s.explain(err)).Message
	}
	return shown
}

// readLog passes on an instance's output as it comes, to its end.
func (s *Server) readLog(ctx context.Context, req *pb.FollowLogsRequest, pass func([]*pb.LogEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.cfg.ControlPlane.FollowLogs(ctx, req)
	if err != nil {
		return err
	}
	for {
		some, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pass(some.GetEntries()); err != nil {
			return err
		}
	}
}

// followLog tells a page of an instance's output, wherever the instance goes, until ctx ends.
func (s *Server) followLog(ctx context.Context, ref string, news chan<- logNews) {
	tell := func(n logNews) error {
		select {
		case news <- n:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var at logBegins
	var known told
	for ctx.Err() == nil {
		resp, err := s.cfg.ControlPlane.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: ref})
		if err == nil {
			one := resp.GetInstance()
			if now := (logBegins{one.GetNodeName(), one.GetGeneration()}); now != at {
				at, known = now, told{}
				if tell(logNews{begins: &now}) != nil {
					return
				}
			}
			err = s.batchLog(ctx, one.GetInstanceId(), &known, tell)
		}
		if rpc.CodeOf(err) == rpc.InstanceNotFound {
			return // the record says so
		}
		select {
		case <-time.After(followLogAgain):
		case <-ctx.Done():
		}
	}
}

// told is how far a page knows an output: what is read again is not told again.
type told struct {
	seq    uint64
	remark string // the agent's last one: they are not counted
}

func (t *told) fresh(line logLine) bool {
	if line.Seq == 0 {
		again := line.Text == t.remark
		t.remark = line.Text
		return !again
	}
	again := line.Seq <= t.seq
	t.seq = max(t.seq, line.Seq)
	return !again
}

// batchLog tells of one life's output, some lines at a time.
func (s *Server) batchLog(ctx context.Context, id string, known *told, tell func(logNews) error) error {
	ctx, cancel := context.WithCancel(ctx)
	entries := make(chan []*pb.LogEntry)
	ended := make(chan error, 1)
	go func() {
		ended <- s.readLog(ctx, &pb.FollowLogsRequest{Ref: id, Tail: shownLines, Follow: true}, func(some []*pb.LogEntry) error {
			select {
			case entries <- some:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		close(entries)
	}()
	defer func() { // nobody outlives this call
		cancel()
		for range entries {
		}
	}()
	due := time.NewTimer(gatherLines)
	due.Stop()
	var lines []logLine
	left := 0 // how many were left out
	for {
		select {
		case some, more := <-entries:
			began := len(lines) == 0
			for _, e := range some {
				if line := lineOf(e); known.fresh(line) {
					lines = append(lines, line)
				}
			}
			if began && len(lines) > 0 {
				due.Reset(gatherLines)
			}
			if extra := len(lines) - mostLines; extra > 0 {
				left += extra
				lines = append(lines[:0:0], lines[extra:]...)
			}
			if more {
				continue
			}
		case <-due.C:
		}
		if left > 0 {
			lines = append([]logLine{{Stream: "wasmatrix", Text: strconv.Itoa(left) + " lines came faster than can be shown"}}, lines...)
		}
		if len(lines) > 0 && tell(logNews{lines: lines}) != nil {
			return ctx.Err()
		}
		lines, left = nil, 0
		select {
		case err := <-ended:
			return err
		default:
		}
	}
}

// logs answers with an instance's output: as text, or with follow as server-sent events.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	req := &pb.FollowLogsRequest{Ref: r.PathValue("id")}
	err := text("the reference", req.GetRef())
	if tail := query.Get("tail"); err == nil && tail != "" {
		n, bad := strconv.ParseUint(tail, 10, 32)
		if bad != nil {
			err = rpc.Errorf(rpc.InvalidRequest, "tail=%q is no number of lines", tail)
		}
		req.Tail = uint32(n)
	}
	if err == nil {
		req.Follow, err = flagOf(query, "follow")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if req.GetFollow() {
		s.streamLog(w, r, req)
		return
	}
	s.bounded(func(w http.ResponseWriter, r *http.Request) { s.printLog(w, r, req) })(w, r)
}

// printLog writes the bytes that the guest wrote, line by line.
func (s *Server) printLog(w http.ResponseWriter, r *http.Request, req *pb.FollowLogsRequest) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	out := bufio.NewWriterSize(w, 64<<10)
	begun := false
	begin := func() {
		begun = true
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	err := s.readLog(ctx, req, func(some []*pb.LogEntry) error {
		if !begun {
			begin()
		}
		for _, e := range some {
			_, _ = out.Write(e.GetLine())
			_ = out.WriteByte('\n') // the writer keeps its first error for Flush
		}
		return nil
	})
	if err != nil && !begun {
		s.fail(w, r, err)
		return
	}
	if !begun {
		begin()
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		s.cfg.Log.DebugContext(ctx, "an output broke off", "err", err)
		panic(http.ErrAbortHandler) // half of it must not look like the whole
	}
}

// streamLog writes each line as an event, until the instance has ended.
func (s *Server) streamLog(w http.ResponseWriter, r *http.Request, req *pb.FollowLogsRequest) {
	if !s.streams.enter() {
		s.fail(w, r, rpc.Errorf(rpc.ResourceExhausted, "this node has %d followers already; ask another one", cap(s.streams)))
		return
	}
	defer s.streams.leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	if _, err := s.cfg.ControlPlane.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: req.GetRef()}); err != nil {
		s.fail(w, r, err) // an error is an answer only now
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return
	}
	entries := make(chan []*pb.LogEntry)
	ended := make(chan error, 1)
	go func() {
		defer close(entries)
		ended <- s.readLog(ctx, req, func(some []*pb.LogEntry) error {
			select {
			case entries <- some:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	defer func() {
		cancel()
		for range entries {
		}
	}()
	out := eventWriter{w, http.NewResponseController(w)}
	if out.begin() != nil {
		return
	}
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case some, more := <-entries:
			if !more {
				_ = out.end(<-ended) // it fails only if the caller is gone
				return
			}
			if out.entries(some) != nil {
				return
			}
		case <-beat.C:
			if out.comment("heartbeat") != nil {
				return
			}
		}
	}
}

// entries writes lines of output.
func (o eventWriter) entries(some []*pb.LogEntry) error {
	var batch []byte
	for _, e := range some {
		data, err := json.Marshal(api.FromLogEntry(e))
		if err != nil {
			return err
		}
		batch = append(batch, "event: line\ndata: "...)
		batch = append(append(batch, data...), "\n\n"...)
	}
	return o.flush(batch)
}

// end says why there is no more: the instance has ended, or an error.
func (o eventWriter) end(err error) error {
	shape := any(struct{}{})
	kind := "end"
	if err != nil {
		kind, shape = "error", api.FromError(err)
	}
	data, err := json.Marshal(shape)
	if err != nil {
		return err
	}
	return o.flush([]byte("event: " + kind + "\ndata: " + string(data) + "\n\n"))
}
