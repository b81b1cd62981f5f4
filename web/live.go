package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// beatEvery is how often an open page hears that it is connected; it gives up on silence of three beats.
	beatEvery = 5 * time.Second
	// maxDraws bounds how many views are drawn at once for open pages, so that they cannot take a node that
	// has work to do. The others wait, and then show what is newest.
	maxDraws = 2
	// restTimes is how many times as long as drawing took a page rests before it is drawn again, at least.
	restTimes = 4
)

// live keeps an open page up to date with server-sent events: first the pieces that differ from those it says
// it has, then each that changes; and the output of the instance that it shows. The stream outlives leaders.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	at, err := url.Parse(query.Get("view"))
	if err != nil {
		s.fail(w, r, rpc.Errorf(rpc.InvalidRequest, "view=%q is no address of a page: %w", query.Get("view"), err))
		return
	}
	q, err := s.see(at)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	leave, ok := s.beginStream(w, r)
	if !ok {
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	defer s.hub.join()()

	logs := make(chan logNews)
	if q.view.name == "instance" {
		following := make(chan struct{})
		go func() {
			defer close(following)
			s.followLog(ctx, q.ref, logs)
		}()
		defer func() { cancel(); <-following }() // the handler ends after its follower
	}
	stream := &pageStream{out: eventWriter{w, http.NewResponseController(w)}, has: hashesOf(query.Get("has"))}
	if stream.out.begin() != nil || stream.hello() != nil {
		return
	}
	s.keepUp(ctx, q, stream, logs)
}

// keepUp writes what changes until the page is gone.
func (s *Server) keepUp(ctx context.Context, q question, stream *pageStream, logs <-chan logNews) {
	beat := time.NewTicker(min(beatEvery, s.heartbeat))
	defer beat.Stop()
	rest := time.NewTimer(0) // until it fires, nothing is drawn
	defer rest.Stop()
	rested := false
	var shown *moment
	for {
		newest, changed := s.hub.now()
		if rested && newest != nil && newest != shown {
			began := time.Now()
			pieces, err := s.drawFor(ctx, newest, q)
			if err != nil || stream.swap(pieces) != nil {
				return
			}
			shown, rested = newest, false
			rest.Reset(restTimes * time.Since(began))
			continue
		}
		if newest != shown {
			changed = nil // it is known that there is something to show
		}
		select {
		case <-changed:
		case <-rest.C:
			rested = true
		case news := <-logs:
			if stream.log(news) != nil {
				return
			}
		case <-beat.C:
			if stream.beat() != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// drawFor draws a view for an open page when there is room.
func (s *Server) drawFor(ctx context.Context, m *moment, q question) ([]piece, error) {
	select {
	case s.draws <- struct{}{}:
		defer s.draws.leave()
		return m.draw(q), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pageStream is what one open page is told.
type pageStream struct {
	out eventWriter
	has map[string]string // the hash of each piece that it shows
}

// hashesOf reads which pieces a page says it has.
func hashesOf(list string) map[string]string {
	has := map[string]string{}
	for one := range strings.SplitSeq(list, ",") {
		if name, hash, ok := strings.Cut(one, ":"); ok && len(has) < 32 {
			has[name] = hash
		}
	}
	return has
}

func (p *pageStream) hello() error {
	return p.tell("hello", map[string]any{"build": build, "now": time.Now().UTC()})
}

func (p *pageStream) beat() error { return p.tell("beat", map[string]any{"now": time.Now().UTC()}) }

// swap tells which pieces changed. What can't be drawn for a while stays as it is.
func (p *pageStream) swap(pieces []piece) error {
	var fresh []piece
	for _, one := range pieces {
		if one.passing() || p.has[one.Name] == one.Hash {
			continue
		}
		p.has[one.Name] = one.Hash
		fresh = append(fresh, one)
	}
	if len(fresh) == 0 {
		return nil
	}
	return p.tell("swap", fresh)
}

func (p *pageStream) log(news logNews) error {
	if news.begins != nil {
		return p.tell("log-begin", news.begins)
	}
	return p.tell("log", news.lines)
}

func (p *pageStream) tell(kind string, shape any) error {
	data, err := json.Marshal(shape)
	if err != nil {
		return err
	}
	var batch bytes.Buffer
	batch.WriteString("event: " + kind + "\ndata: ")
	batch.Write(data)
	batch.WriteString("\n\n")
	return p.out.flush(batch.Bytes())
}
