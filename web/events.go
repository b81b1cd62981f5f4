package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// reconnectAfter is how long browsers are asked to wait before they connect again.
	reconnectAfter = time.Second
	// followAgainAfter is the wait before the next leader is asked; it is there in about a second.
	followAgainAfter = 250 * time.Millisecond
	// overlap is asked for again at a reconnect: clocks differ, and reports take a moment.
	overlap = 10 * time.Second
	// writeTimeout is how long one batch may take; a follower that reads no more is cut off.
	writeTimeout = 10 * time.Second
)

// events streams what happened and what happens, as server-sent events. The stream outlives leaders.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	from, err := resume(r.Header.Get("Last-Event-ID"), r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// An error is an answer only now: a stream without events would not even say that there is a leader.
	if _, err := s.askStatus(r.Context(), callTimeout); err != nil {
		s.fail(w, r, err)
		return
	}
	leave, ok := s.beginStream(w, r)
	if !ok {
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer context.AfterFunc(s.ending, cancel)()
	batches := make(chan []*pb.Event)
	go func() {
		defer close(batches)
		err := s.follow(ctx, from, batches)
		s.cfg.Log.DebugContext(r.Context(), "a stream of events ended", "err", err)
	}()
	defer func() { // the handler ends after its follower
		cancel()
		for range batches { // nobody is left to read them
		}
	}()
	out := eventWriter{w, http.NewResponseController(w)}
	if err := out.begin(); err != nil {
		return
	}
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case events, more := <-batches:
			if !more || out.events(events) != nil {
				return
			}
		case <-beat.C:
			if out.comment("heartbeat") != nil {
				return
			}
		}
	}
}

// beginStream begins an answer of server-sent events, and says whether it goes on: not where this node has followers enough, nor
// where only the head was asked for. Who goes on calls leave in the end.
func (s *Server) beginStream(w http.ResponseWriter, r *http.Request) (leave func(), goesOn bool) {
	if !s.streams.enter() {
		s.fail(w, r, rpc.Errorf(rpc.ResourceExhausted, "this node has %d followers already; ask another one", cap(s.streams)))
		return nil, false
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		s.streams.leave()
		return nil, false
	}
	return s.streams.leave, true
}

// follow passes on events, each once, until ctx ends or asking again would not help.
func (s *Server) follow(ctx context.Context, from cursor, batches chan<- []*pb.Event) error {
	for {
		err := s.followLeader(ctx, &from, batches)
		if ctx.Err() != nil || !rpc.Retryable(err) {
			return err
		}
		select {
		case <-time.After(followAgainAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followLeader passes on events as long as one leader sends them, and moves the cursor along.
func (s *Server) followLeader(ctx context.Context, from *cursor, batches chan<- []*pb.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.cfg.ControlPlane.WatchEvents(ctx, from.request())
	if err != nil {
		return err
	}
	// What was known before. It does not grow while events come, for the clock of a node may have been
	// set back, and then the oldest of its events is not the first.
	known := maps.Clone(from.passed)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return rpc.Errorf(rpc.CommunicationFailure, "the node ended the stream of events")
		}
		if err != nil {
			return err
		}
		var fresh []*pb.Event
		for _, e := range resp.GetEvents() {
			if from.pass(e, known) {
				fresh = append(fresh, e)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		select {
		case batches <- fresh:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cursor is what a follower has got.
//
// The control plane tells events apart by time only, and the times of several nodes' events do not
// come in order. But those of one source, which is one life of one agent, come in the order of its count.
type cursor struct {
	since  time.Time         // zero for the beginning
	passed map[string]uint64 // source to the highest count that was passed on
}

// resume reads where a follower wants to go on. The id that a browser sends after a break is newer than
// the address, which it repeats. One that is not ours is no error: all events come again.
func resume(last string, query url.Values) (cursor, error) {
	c := cursor{passed: map[string]uint64{}}
	if stamp, id, ok := strings.Cut(last, "/"); ok {
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			source, count := split(id)
			c.since, c.passed[source] = at.Add(-overlap), count
			return c, nil
		}
	}
	if since := query.Get("since"); since != "" {
		at, err := time.Parse(time.RFC3339Nano, since)
		if err != nil {
			return c, rpc.Errorf(rpc.InvalidRequest, "since=%q is no time; it would be like 2026-01-31T12:00:00Z", since)
		}
		c.since = at
	}
	return c, nil
}

func (c *cursor) request() *pb.WatchEventsRequest {
	req := &pb.WatchEventsRequest{Follow: true}
	if c.since.Unix() > 0 { // no message carries times before year 1, and nothing happened before 1970
		req.Since = timestamppb.New(c.since)
	}
	return req
}

// pass says whether an event is new to whoever knows what is known, and notes that it was passed on.
func (c *cursor) pass(e *pb.Event, known map[string]uint64) bool {
	source, count := split(e.GetEventId())
	if before, ok := known[source]; ok && count <= before {
		return false
	}
	c.passed[source] = max(c.passed[source], count)
	if at := e.GetTime().AsTime().Add(-overlap); e.GetTime() != nil && at.After(c.since) {
		c.since = at
	}
	return true
}

// split cuts an event's id into its source and the count at its end.
func split(id string) (source string, count uint64) {
	source = strings.TrimRight(id, "0123456789")
	count, err := strconv.ParseUint(id[len(source):], 10, 64)
	if err != nil { // no count: a source of one event
		return id, 0
	}
	return source, count
}

// eventWriter writes server-sent events, each batch within its time.
type eventWriter struct {
	w       io.Writer
	control *http.ResponseController
}

func (o eventWriter) begin() error {
	if err := o.control.SetReadDeadline(time.Time{}); err != nil { // it would end the stream
		return err
	}
	return o.flush([]byte("retry: " + strconv.FormatInt(reconnectAfter.Milliseconds(), 10) + "\n\n"))
}

func (o eventWriter) comment(words string) error { return o.flush([]byte(": " + words + "\n\n")) }

func (o eventWriter) events(events []*pb.Event) error {
	var batch bytes.Buffer
	for _, e := range events {
		data, err := json.Marshal(api.FromEvent(e))
		if err != nil {
			return err
		}
		batch.WriteString("id: " + e.GetTime().AsTime().Format(time.RFC3339Nano) + "/" + oneLine(e.GetEventId()))
		batch.WriteString("\nevent: " + oneLine(e.GetType()) + "\ndata: ")
		batch.Write(data)
		batch.WriteString("\n\n")
	}
	return o.flush(batch.Bytes())
}

func (o eventWriter) flush(batch []byte) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := o.w.Write(batch); err != nil {
		return err
	}
	return o.control.Flush()
}

// oneLine keeps a word from ending its line, and so from making up fields or events.
func oneLine(word string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, word)
}
