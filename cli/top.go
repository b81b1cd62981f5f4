package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"
	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "watch the cluster live",
		ArgsUsage: " ",
		Description: "Nodes with their load, instances and the newest events, on one screen of a terminal; Enter shows one instance and\n" +
			"what it writes, ? the keys. Nothing is changed by it. A connection that broke is opened again for as long as it takes, and\n" +
			"until then the screen says so. In scripts use ps, members or events -f.",
		Flags: clientFlags(),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			out, isFile := c.out().(*os.File)
			if c.json || !isFile || !term.IsTerminal(out.Fd()) || !term.IsTerminal(os.Stdin.Fd()) {
				return usagef(c.Context, "top needs a terminal; in scripts use `wasmatrix ps`, `wasmatrix members` or `wasmatrix events -f`, with -o json")
			}
			return c.top(ctx, out)
		}),
	}
}

// top runs the screen until its user leaves it.
func (c *client) top(ctx context.Context, out *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	feed := &topFeed{client: c, ctx: ctx}
	program := tea.NewProgram(newTopModel(feed, c.String("addr"), screenOf(out).color), tea.WithContext(ctx), tea.WithOutput(out))
	feed.send = program.Send
	feed.spawn(feed.events)
	_, err := program.Run()
	cancel()
	feed.running.Wait()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// topFeed asks the cluster for what the screen shows.
type topFeed struct {
	*client

	ctx     context.Context // of the screen; streams end with it
	send    func(tea.Msg)   // drops what comes after the screen's end
	running sync.WaitGroup
}

// topQuery says what instances are asked for.
type topQuery struct {
	filter     string
	sort       pb.InstanceSort
	descending bool
	all        bool
	offset     int
	limit      int
}

// The messages of the feed.
type (
	// topSnapshot is the cluster at one moment, or as much of it as could be had.
	topSnapshot struct {
		query   topQuery
		at      time.Time
		status  *api.Status
		members []api.Member // nil where they could not be had
		rates   *api.Sample  // likewise: the newest of the history, which an older leader does not keep
		list    *api.List    // likewise
		err     error        // the first
	}
	topEvent struct{ event api.Event }
	// topLog is a line of an instance's output, or a remark on it.
	topLog struct {
		id   string
		line string
	}
	// topInstance is the instance that is looked at.
	topInstance struct {
		id       string
		instance *api.Instance
		err      error
	}
)

// topPatience is how long an answer is waited for before the screen says that there is none.
const topPatience = 2 * time.Second

// snapshot asks for all that changes, at once.
func (f *topFeed) snapshot(q topQuery) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(f.ctx, topPatience)
		defer cancel()
		s := topSnapshot{query: q}
		status, err := f.control.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
		if err == nil {
			shape := api.FromStatus(status)
			s.status = &shape
		}
		members, errMembers := f.control.ListMembers(ctx, &pb.ListMembersRequest{})
		if errMembers == nil {
			s.members = api.FromMembers(members.GetMembers())
		}
		if history, err := f.control.GetHistory(ctx, &pb.GetHistoryRequest{}); err == nil && len(history.GetSamples()) > 0 {
			samples := api.FromHistory(history).Samples
			s.rates = &samples[len(samples)-1]
		}
		list, errList := f.instances(ctx, q)
		if errList == nil {
			s.list = list
		}
		for _, e := range []error{err, errMembers, errList} {
			if s.err == nil {
				s.err = e
			}
		}
		s.at = time.Now()
		return s
	}
}

func (f *topFeed) instances(ctx context.Context, q topQuery) (*api.List, error) {
	req := &pb.ListInstancesRequest{
		All: q.all, Filter: q.filter, Sort: q.sort, Descending: q.descending, Offset: uint32(q.offset), Limit: uint32(q.limit),
	}
	stream, err := f.control.ListInstances(ctx, req)
	if err != nil {
		return nil, err
	}
	return api.ReadList(req, stream)
}

// look asks for one instance.
func (f *topFeed) look(id string) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(f.ctx, topPatience)
		defer cancel()
		resp, err := f.control.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: id})
		if err != nil {
			return topInstance{id: id, err: err}
		}
		shape := api.FromInstance(resp.GetInstance())
		return topInstance{id: id, instance: &shape}
	}
}

// spawn has a stream feed the screen until both end.
func (f *topFeed) spawn(stream func(context.Context)) {
	f.running.Go(func() { stream(f.ctx) })
}

// events passes events on for as long as the screen is there.
func (f *topFeed) events(ctx context.Context) {
	seen := newMemory(rememberEvents) // a stream that gave up and is begun anew brings all again
	f.forever(ctx, func(ctx context.Context) error {
		return f.eachEvent(ctx, &pb.WatchEventsRequest{Follow: true}, func(e *pb.Event) error {
			if seen.add(e.GetEventId()) {
				f.send(topEvent{api.FromEvent(e)})
			}
			return nil
		})
	})
}

// topTail is how many lines are shown of what an instance wrote before it was looked at.
const topTail = 200

// logs passes on what an instance writes until the returned function is called.
func (f *topFeed) logs(id string) (stop func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	line := func(text string) { f.send(topLog{id, text}) }
	fl := &follower{client: f.client, ref: id, tail: topTail}
	fl.show = func(e *pb.LogEntry) error {
		line(string(e.GetLine()))
		return nil
	}
	fl.remark = func(format string, args ...any) { line("note: " + fmt.Sprintf(format, args...)) }
	f.running.Go(func() {
		f.forever(ctx, func(ctx context.Context) error {
			err := fl.run(ctx)
			switch {
			case err == nil:
				line("note: it has ended")
			case !rpc.Retryable(err):
				line("note: " + rpc.FromError(err).Message)
			default:
				return err
			}
			<-ctx.Done()
			return nil
		})
	})
	return cancel
}

// forever goes on with a stream that gave up. A screen is looked at for hours, and an outage ends some time.
func (f *topFeed) forever(ctx context.Context, stream func(context.Context) error) {
	for ctx.Err() == nil {
		_ = stream(ctx) // that there is no answer is told by the snapshots
		select {
		case <-ctx.Done():
		case <-time.After(followWaitMost):
		}
	}
}
