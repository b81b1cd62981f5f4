package web

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// swapEvery is how close together two moments may be: what changes in between is shown together.
	swapEvery = 200 * time.Millisecond
	// lookEvery is how often the hub looks although no event came: load, drains and suspicions have none.
	lookEvery = 2 * time.Second
	// lingerFor is how long the hub goes on without a page, since who reloads or clicks is back at once.
	lingerFor = 30 * time.Second
	// keptEvents is how many events the hub keeps, as many as a leader does.
	keptEvents = 10_000
)

// hub looks at the cluster for all open pages of this node together: it follows events as long as a page is
// open, and after each makes one moment that all pages show. Without a page it asks nothing.
type hub struct {
	s *Server

	every, linger time.Duration // lookEvery and lingerFor
	wake          chan struct{} // holds a word when the first page has come

	mu sync.Mutex // guards all below

	pages   int
	left    time.Time // when the last page left
	kept    []api.Event
	caught  bool // kept has all that there was
	newest  *moment
	changed chan struct{} // closed when there is a newer moment
}

func newHub(s *Server) *hub {
	return &hub{s: s, every: lookEvery, linger: lingerFor, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// join counts a page in until it leaves.
func (h *hub) join() (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pages++
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.pages--
		h.left = time.Now()
	}
}

// now returns the newest moment, nil before the first, and a channel that is closed when there is a newer one.
func (h *hub) now() (*moment, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.newest, h.changed
}

// look returns a moment of its own for who asks once.
func (h *hub) look(ctx context.Context) *moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &moment{s: h.s, at: time.Now().UTC(), ctx: ctx}
	if h.caught {
		m.kept = h.kept
	}
	return m
}

// run looks while there are pages, until ctx ends.
func (h *hub) run(ctx context.Context) {
	for {
		select {
		case <-h.wake:
			h.watch(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// watch makes moments until no page has been there for a while.
func (h *hub) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	fresh := make(chan []*pb.Event)
	var following sync.WaitGroup
	following.Go(func() { h.follow(ctx, fresh) })
	defer func() {
		cancel()
		following.Wait()
		h.forget()
	}()
	look := time.NewTicker(h.every)
	defer look.Stop()
	h.advance(ctx)
	var last time.Time
	due := time.NewTimer(swapEvery)
	due.Stop()
	waits := false
	for {
		select {
		case events := <-fresh:
			h.keep(events)
			if !waits {
				waits = true
				due.Reset(swapEvery - time.Since(last))
			}
			continue
		case <-due.C:
			waits = false
		case <-look.C:
			if h.deserted() {
				return
			}
			if time.Since(last) < swapEvery {
				continue
			}
		case <-ctx.Done():
			return
		}
		last = time.Now()
		h.advance(ctx)
	}
}

// follow gathers the events there are, and then passes on those that come, whoever leads.
func (h *hub) follow(ctx context.Context, fresh chan<- []*pb.Event) {
	for {
		from := cursor{passed: map[string]uint64{}}
		var all []api.Event
		bounded, cancel := context.WithTimeout(ctx, answerTimeout)
		err := h.s.gather(bounded, &pb.WatchEventsRequest{}, &from, func(e *pb.Event) { all = append(all, api.FromEvent(e)) })
		cancel()
		if err == nil {
			h.begin(all)
			select {
			case fresh <- nil: // what came since the first moment is to be seen
			case <-ctx.Done():
			}
			err = h.followLeaders(ctx, &from, fresh)
		}
		if ctx.Err() != nil {
			return
		}
		h.s.cfg.Log.DebugContext(ctx, "the page's events broke off; asking again", "err", rpc.FromError(err).Message)
		select {
		case <-time.After(reconnectAfter):
		case <-ctx.Done():
			return
		}
	}
}

// followLeaders passes on events from one leader after the other, and an empty word whenever one is lost.
func (h *hub) followLeaders(ctx context.Context, from *cursor, fresh chan<- []*pb.Event) error {
	for {
		err := h.s.followLeader(ctx, from, fresh)
		if ctx.Err() != nil || !rpc.Retryable(err) {
			return err
		}
		select {
		case fresh <- nil:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(followAgainAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin takes all events that there were.
func (h *hub) begin(all []api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept, h.caught = append(make([]api.Event, 0, len(all)+keptEvents/10), all...), true
}

// keep adds events. What is kept is never changed, for moments share it; the oldest are cut off in blocks.
func (h *hub) keep(events []*pb.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		h.kept = append(h.kept, api.FromEvent(e))
	}
	if extra := len(h.kept) - keptEvents; extra > keptEvents/10 {
		h.kept = slices.Clone(h.kept[extra:])
	}
}

// advance makes the next moment, and tells the pages.
func (h *hub) advance(ctx context.Context) {
	m := h.look(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.newest = m
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hub) deserted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pages == 0 && time.Since(h.left) > h.linger
}

func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept, h.caught, h.newest = nil, false, nil
}
