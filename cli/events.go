package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// rememberEvents is how many events are known again after a reconnect: more than a node keeps, and so
// more than it can send twice.
const rememberEvents = 20_000

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:        "events",
		Usage:       "show what happened",
		ArgsUsage:   " ",
		Description: "Those that the leader remembers: the latest 10,000.",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what happens from now on", DisableDefaultText: true, EnvVars: env("follow")},
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			if c.Bool("follow") {
				return followEvents(ctx, c)
			}
			return listEvents(ctx, c)
		}),
	}
}

func listEvents(ctx context.Context, c *client) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var events []api.Event
	err := rpc.Retry(ctx, func(ctx context.Context) error {
		events = []api.Event{}
		_, err := c.watch(ctx, false, func(e *pb.Event) error {
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

// followEvents prints each event once, through reconnects and changes of leader.
func followEvents(ctx context.Context, c *client) error {
	seen := newMemory(rememberEvents)
	return c.follow(ctx, func(ctx context.Context) (bool, error) {
		came, err := c.watch(ctx, true, func(e *pb.Event) error {
			if !seen.add(e.GetEventId()) {
				return nil
			}
			if c.json {
				return printJSONLine(c.out(), api.FromEvent(e))
			}
			return printEvent(c.out(), api.FromEvent(e))
		})
		if err == nil { // it has no end of its own
			err = rpc.Errorf(rpc.CommunicationFailure, "the node ended the stream of events")
		}
		return came, err
	})
}

// watch passes on events to the end of the stream.
func (c *client) watch(ctx context.Context, follow bool, each func(*pb.Event) error) (came bool, err error) {
	stream, err := c.control.WatchEvents(ctx, &pb.WatchEventsRequest{Follow: follow})
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
	line := fmt.Sprintf("%-29s  %-20s  %s  %s", moment(e.Time), clean(e.Type), clean(subject), clean(pairs(e.Details)))
	_, err := fmt.Fprintln(w, strings.TrimRight(line, " "))
	return err
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
