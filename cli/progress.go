package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// progressAfter is how long something takes at least before a word is worth it.
	progressAfter = 300 * time.Millisecond
	// progressEvery is quick enough to look alive.
	progressEvery = 100 * time.Millisecond
)

// progress is a line on a terminal's stderr that says how far something is, and is gone when it is done. Where stderr is
// no terminal, or JSON is asked for, there is none. Several may tell it what to say.
type progress struct {
	out screen

	// mu guards what was shown, and keeps it in one piece.
	mu    sync.Mutex
	next  time.Time // not before
	shown bool
	done  bool
}

func (c *client) progress() *progress {
	p := &progress{out: screenOf(c.App.ErrWriter), next: time.Now().Add(progressAfter)}
	p.done = c.json || p.out.width == 0 || os.Getenv("TERM") == "dumb"
	return p
}

// show says how far it is, where that has not just been said.
func (p *progress) show(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.done || now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(progressEvery), true
	// The last column stays free: some terminals begin a new line there.
	io.WriteString(p.out, "\r"+shorten(clean(fmt.Sprintf(format, args...)), p.out.width-1)+"\x1b[K") //nolint:errcheck // nothing depends on it
}

// end removes the line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		io.WriteString(p.out, "\r\x1b[K") //nolint:errcheck // as above
	}
	p.done, p.shown = true, false
}

// startProgress says how many instances are started. One request starts a thousand and is answered when all are started or
// failed; what becomes of each is heard of as an event.
type startProgress struct {
	*progress

	cancel context.CancelFunc
	ended  chan struct{}

	// count guards what has become of the instances.
	count   sync.Mutex
	started map[string]bool // those that are waited for, by id
	running int             // how many of them were started
	crashed map[string]bool // ids
	failed  int
}

// clockSkew is how far a node's clock may be behind before its events are overlooked; more of it costs old events.
const clockSkew = time.Minute

// watchStarts begins to say how many of these instances are started, until it is closed.
func (c *client) watchStarts(ctx context.Context, ids []string) *startProgress {
	ctx, cancel := context.WithCancel(ctx)
	p := &startProgress{
		progress: c.progress(), cancel: cancel, ended: make(chan struct{}), started: make(map[string]bool, len(ids)), crashed: map[string]bool{},
	}
	if p.done || len(ids) == 1 {
		close(p.ended)
		return p
	}
	for _, id := range ids {
		p.started[id] = false
	}
	go func() {
		defer close(p.ended)
		// Whatever ends the stream ends the progress alone: of a cluster in trouble the request itself tells.
		_, _ = c.watch(ctx, &pb.WatchEventsRequest{Follow: true, Since: timestamppb.New(time.Now().Add(-clockSkew))}, func(e *pb.Event) error {
			p.heard(e)
			return nil
		})
	}()
	return p
}

// heard takes an event into account.
func (p *startProgress) heard(e *pb.Event) {
	p.count.Lock()
	defer p.count.Unlock()
	started, ours := p.started[e.GetInstanceId()]
	switch {
	case !ours:
		return
	case e.GetType() == "instance.started" && !started:
		p.started[e.GetInstanceId()] = true
		p.running++
	case e.GetType() == "instance.crashed":
		p.crashed[e.GetInstanceId()] = true
	}
	p.show("%s", p.textLocked())
}

// fail counts starts that failed, which no event tells of.
func (p *startProgress) fail(n int) {
	p.count.Lock()
	defer p.count.Unlock()
	p.failed += n
	p.show("%s", p.textLocked())
}

func (p *startProgress) textLocked() string {
	text := fmt.Sprintf("started %d of %d", p.running, len(p.started))
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed", p.failed)
	}
	if len(p.crashed) > 0 {
		text += fmt.Sprintf(", %d crashed", len(p.crashed))
	}
	return text
}

// close waits until no more is said.
func (p *startProgress) close() {
	p.cancel()
	<-p.ended
	p.end()
}
