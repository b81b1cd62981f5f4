package cli

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "show an instance's output",
		ArgsUsage: "REF",
		Description: refHelp + " What the guest wrote to stdout goes to stdout, and what it wrote to\n" +
			"stderr to stderr, from whichever node it is on. With --follow a connection that broke is opened again,\n" +
			"and each line is shown once; an outage may last for --timeout. Ctrl-C ends it.\n\n" +
			"    wasmatrix logs -f --tail 20 web\n" +
			"    wasmatrix logs 01930000-0002 2>errors.txt",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what it writes from now on, until it ends", DisableDefaultText: true, EnvVars: env("follow")},
			&cli.UintFlag{Name: "tail", Usage: "only the last `N` lines; 0 for all that is kept", EnvVars: env("tail")},
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			args, err := exactly(c.Context, "REF")
			if err != nil {
				return err
			}
			if c.Uint("tail") > 1<<31 {
				return usagef(c.Context, "--tail %d is too many; 0 shows all", c.Uint("tail"))
			}
			if c.Bool("follow") {
				return (&follower{client: c, ref: args[0], tail: uint32(c.Uint("tail")), show: c.showEntry, remark: c.note}).run(ctx)
			}
			return listLogs(ctx, c, args[0])
		}),
	}
}

func listLogs(ctx context.Context, c *client, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var entries []*pb.LogEntry
	err := rpc.Retry(ctx, func(ctx context.Context) error {
		entries = nil
		_, err := c.readLogs(ctx, &pb.FollowLogsRequest{Ref: ref, Tail: uint32(c.Uint("tail"))}, func(e *pb.LogEntry) error {
			entries = append(entries, e)
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	if c.json {
		shapes := make([]api.LogEntry, 0, len(entries))
		for _, e := range entries {
			shapes = append(shapes, api.FromLogEntry(e))
		}
		return printJSON(c.out(), shapes)
	}
	for _, e := range entries {
		if err := c.printEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// readLogs passes on the entries of one stream to its end.
func (c *client) readLogs(ctx context.Context, req *pb.FollowLogsRequest, each func(*pb.LogEntry) error) (came bool, err error) {
	stream, err := c.control.FollowLogs(ctx, req)
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
		for _, e := range some.GetEntries() {
			if err := each(e); err != nil {
				return came, err
			}
		}
	}
}

// printEntry prints a line as the guest wrote it, to where the guest wrote it.
func (c *client) printEntry(e *pb.LogEntry) error {
	w, line := c.out(), e.GetLine()
	if e.GetStream() != "stdout" {
		w = c.App.ErrWriter
	}
	if e.GetStream() == "wasmatrix" {
		line = append([]byte("note: "), line...)
	}
	_, err := w.Write(append(bytes.Clone(line), '\n'))
	return err
}

// showEntry prints an entry that has just come.
func (c *client) showEntry(e *pb.LogEntry) error {
	if c.json {
		return printJSONLine(c.out(), api.FromLogEntry(e))
	}
	return c.printEntry(e)
}

// follower follows one instance's output, each line once, through reconnects and to other nodes.
type follower struct {
	*client

	ref    string
	tail   uint32
	show   func(*pb.LogEntry) error
	remark func(format string, args ...any) // of what is no part of the output

	begun bool
	lines lines
}

// place is where an instance is. Its lines are counted within its life there.
type place struct {
	node       string
	generation uint64
}

func placeOf(i *pb.Instance) place { return place{i.GetNodeId(), i.GetGeneration()} }

// lines knows which lines were shown. A stream has no start but that of what is kept, so that after a
// reconnect lines come again.
type lines struct {
	place    place
	last     uint64 // from that place; 0 before the first
	reopened bool   // lines were shown from there, and none of the present stream yet
}

// open begins a stream of the lines from a place.
func (l *lines) open(at place) {
	if at != l.place {
		l.place, l.last = at, 0
	}
	l.reopened = l.last > 0
}

// next says whether a line is new, and how many before it went missing between two streams. Within one
// it is the agent that says so, in a remark, which has no number.
func (l *lines) next(seq uint64) (fresh bool, missed uint64) {
	if seq == 0 {
		return true, 0
	}
	if seq <= l.last {
		return false, 0
	}
	if l.reopened {
		missed = seq - l.last - 1
	}
	l.last, l.reopened = seq, false
	return true, missed
}

func (f *follower) run(ctx context.Context) error {
	return f.follow(ctx, f.once)
}

// once follows the instance where it is now. It returns nil when the instance has ended and all it
// wrote was printed.
func (f *follower) once(ctx context.Context) (came bool, err error) {
	i, err := f.lookUp(ctx)
	if err != nil {
		return false, err
	}
	f.ref = i.GetInstanceId() // a name may stand for another one later
	f.lines.open(placeOf(i))
	confirmed := !f.lines.reopened
	req := &pb.FollowLogsRequest{Ref: f.ref, Follow: true}
	if !f.begun {
		req.Tail = f.tail
	}
	came, err = f.readLogs(ctx, req, func(e *pb.LogEntry) error {
		f.begun = true
		if !confirmed {
			if err := f.stillThere(ctx); err != nil {
				return err
			}
			confirmed = true
		}
		fresh, missed := f.lines.next(e.GetSeq())
		if missed > 0 {
			f.remark("%d lines were overwritten by newer ones while the connection was broken", missed)
		}
		if !fresh {
			return nil
		}
		return f.show(e)
	})
	if err != nil {
		return came, err
	}
	return came, f.ended(ctx)
}

// stillThere returns an error if the instance has moved since the stream was asked for: its lines would
// then be taken for those that were shown.
func (f *follower) stillThere(ctx context.Context) error {
	i, err := f.lookUp(ctx)
	if err == nil && placeOf(i) != f.lines.place {
		err = rpc.Errorf(rpc.CommunicationFailure, "instance %s moved to node %s just now", i.GetInstanceId(), i.GetNodeName())
	}
	return err
}

// ended returns nil if there is nothing more to come of the instance, and else why to go on.
func (f *follower) ended(ctx context.Context) error {
	i, err := f.lookUp(ctx)
	if rpc.CodeOf(err) == rpc.InstanceNotFound {
		return nil // it ended, and is not kept any more
	}
	if err != nil {
		return err
	}
	switch i.GetStatus() {
	case pb.InstanceStatus_INSTANCE_STATUS_STARTING, pb.InstanceStatus_INSTANCE_STATUS_RUNNING, pb.InstanceStatus_INSTANCE_STATUS_RESTARTING:
		return rpc.Errorf(rpc.CommunicationFailure, "the output of instance %s broke off, and it still runs", i.GetInstanceId())
	default:
		return nil
	}
}

func (f *follower) lookUp(ctx context.Context) (*pb.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	resp, err := f.control.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: f.ref})
	return resp.GetInstance(), err
}
