package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// rememberEvents is how many events are known again after a reconnect: more than a node keeps, and so
// more than it can send twice.
const rememberEvents = 20_000

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "show what happened",
		ArgsUsage: " ",
		Description: "Those that the leader remembers: the latest 10,000. With --follow a connection that broke is opened again,\n" +
			"and each event is shown once, through changes of leader too; an outage may last for --timeout. Ctrl-C ends it.\n\n" +
			"    wasmatrix events -f\n" +
			"    wasmatrix events -o json | jq '.[] | select(.type == \"instance.crashed\")'",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what happens from now on", DisableDefaultText: true, EnvVars: env("follow")},
			&cli.StringFlag{Name: "instance", Usage: "only what happened to the instance `REF`", EnvVars: env("instance")},
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			req := &pb.WatchEventsRequest{Follow: c.Bool("follow")}
			if ref := c.String("instance"); ref != "" {
				id, err := c.instanceID(ctx, ref)
				if err != nil {
					return err
				}
				req.InstanceId = id
			}
			if req.GetFollow() {
				return followEvents(ctx, c, req)
			}
			return listEvents(ctx, c, req)
		}),
	}
}

// instanceID returns the id that a reference stands for. Events of an instance may be known for longer than the instance, so a
// whole id stands for itself.
func (c *client) instanceID(ctx context.Context, ref string) (string, error) {
	if id, err := uuid.Parse(ref); err == nil && id.String() == ref {
		return ref, nil
	}
	resp, err := ask(ctx, c, c.control.QueryInstance, &pb.QueryInstanceRequest{Ref: ref})
	return resp.GetInstance().GetInstanceId(), err
}

func listEvents(ctx context.Context, c *client, req *pb.WatchEventsRequest) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var events []api.Event
	err := rpc.Retry(ctx, func(ctx context.Context) error {
		events = []api.Event{}
		_, err := c.watch(ctx, req, func(e *pb.Event) error {
			events = append(events, api.FromEvent(e))
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out(), events)
	}
	for _, e := range events {
		if err := printEvent(c.out(), e); err != nil {
			return err
		}
	}
	return nil
}

// followEvents prints what happens from now on, and what the leader remembers before that.
func followEvents(ctx context.Context, c *client, req *pb.WatchEventsRequest) error {
	return c.eachEvent(ctx, req, func(e *pb.Event) error {
		if c.json {
			return printJSONLine(c.out(), api.FromEvent(e))
		}
		return printEvent(c.out(), api.FromEvent(e))
	})
}

// eachEvent passes on each event once, through reconnects and changes of leader.
func (c *client) eachEvent(ctx context.Context, req *pb.WatchEventsRequest, each func(*pb.Event) error) error {
	shown := shownEvents{ids: newMemory(rememberEvents)}
	return c.follow(ctx, func(ctx context.Context) (bool, error) {
		req.Since = shown.since()
		came, err := c.watch(ctx, req, func(e *pb.Event) error {
			if !shown.add(e, time.Now()) {
				return nil
			}
			return each(e)
		})
		if err == nil { // it has no end of its own
			err = rpc.Errorf(rpc.CommunicationFailure, "the node ended the stream of events")
		}
		return came, err
	})
}

// watch passes on events to the end of the stream.
func (c *client) watch(ctx context.Context, req *pb.WatchEventsRequest, each func(*pb.Event) error) (came bool, err error) {
	stream, err := c.control.WatchEvents(ctx, req)
	if err != nil {
		return false, err
	}
	for {
		some, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return came, nil
		}
		if err != nil {
			return came, err
		}
		came = true
		for _, e := range some.GetEvents() {
			if id := req.GetInstanceId(); id != "" && id != e.GetInstanceId() { // an older leader sends all
				continue
			}
			if err := each(e); err != nil {
				return came, err
			}
		}
	}
}

// printEvent prints a line that stays in column whatever came before, so that it can be followed.
func printEvent(w io.Writer, e api.Event) error {
	subject := e.Name
	if e.InstanceID != "" {
		subject = strings.TrimSpace(e.InstanceID + " " + e.Name)
	}
	kind := screenOf(w).paint(eventColors[e.Type], pad(clean(e.Type), 20))
	line := fmt.Sprintf("%-29s  %s  %s  %s", moment(e.Time), kind, clean(subject), clean(eventDetails(e.Details)))
	_, err := fmt.Fprintln(w, strings.TrimRight(line, " "))
	return err
}

// eventDetails writes what is told of an event, and last by which request it came.
func eventDetails(details map[string]string) string {
	request := map[string]string{}
	rest := maps.Clone(details)
	if id := rest[tracing.CorrelationKey]; id != "" {
		request[tracing.CorrelationKey] = id
		delete(rest, tracing.CorrelationKey)
	}
	return strings.TrimSpace(pairs(rest) + " " + pairs(request))
}

// eventsOverlap is how far before the latest event a stream that broke is taken up again: events come
// with the time of the node that saw them, and no two clocks agree. What comes twice is shown once.
const eventsOverlap = 10 * time.Minute

// shownEvents knows which events were shown, and from when on to ask for more.
type shownEvents struct {
	ids    *memory
	latest time.Time
}

// add says whether an event is new. now keeps one from a clock that is ahead from hiding later ones.
func (s *shownEvents) add(e *pb.Event, now time.Time) bool {
	at := e.GetTime().AsTime()
	if at.After(now) {
		at = now
	}
	if at.After(s.latest) {
		s.latest = at
	}
	return s.ids.add(e.GetEventId())
}

// since returns from when on there may be events that were not shown; nil for all.
func (s *shownEvents) since() *timestamppb.Timestamp {
	if s.latest.IsZero() {
		return nil
	}
	return timestamppb.New(s.latest.Add(-eventsOverlap))
}

// memory knows the latest of the words that it was told.
type memory struct {
	known map[string]struct{}
	ring  []string // in the order of their coming; once it is full, next is the oldest
	next  int
}

func newMemory(size int) *memory {
	return &memory{known: make(map[string]struct{}), ring: make([]string, 0, size)}
}

// add says whether a word is new.
func (m *memory) add(word string) bool {
	if _, known := m.known[word]; known {
		return false
	}
	m.known[word] = struct{}{}
	if len(m.ring) < cap(m.ring) {
		m.ring = append(m.ring, word)
		return true
	}
	delete(m.known, m.ring[m.next])
	m.ring[m.next] = word
	m.next = (m.next + 1) % len(m.ring)
	return true
}
