package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const refHelp = "REF is an id, the beginning of one, or a name."

func psCommand() *cli.Command {
	return &cli.Command{
		Name:        "ps",
		Usage:       "list the instances",
		ArgsUsage:   " ",
		Description: "A terminal shows as much of each id as tells those listed apart; a pipe and JSON have the whole ids.",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also those that have ended", DisableDefaultText: true, EnvVars: env("all")},
			&cli.StringFlag{Name: "name", Usage: "only those of this `NAME`", EnvVars: env("name")},
			&cli.StringFlag{Name: "node", Usage: "only those on this `NODE`, by name or id", EnvVars: env("node")},
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			list, err := c.list(ctx, &pb.ListInstancesRequest{All: c.Bool("all"), Name: c.String("name"), Node: c.String("node")})
			if err != nil {
				return err
			}
			return printInstances(c.out(), c.json, api.FromInstances(list))
		}),
	}
}

// list returns the instances from all pages, and notes when some may be missing.
func (c *client) list(ctx context.Context, req *pb.ListInstancesRequest) ([]*pb.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var (
		found      []*pb.Instance
		missing    []string
		recovering bool
	)
	err := rpc.Retry(ctx, func(ctx context.Context) error {
		found, missing, recovering = nil, nil, false
		stream, err := c.control.ListInstances(ctx, req)
		if err != nil {
			return err
		}
		for {
			page, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			found = append(found, page.GetInstances()...)
			missing = append(missing, page.GetMissingNodes()...)
			recovering = recovering || page.GetRecovering()
		}
	})
	if err == nil && recovering {
		c.note("the leader is new and still asks the nodes what they run: something may be missing")
	}
	if err == nil && len(missing) > 0 {
		c.note("no answer from %s: what is listed there may be out of date, and something may be missing", strings.Join(missing, ", "))
	}
	return found, err
}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:        "inspect",
		Usage:       "show one instance, whole",
		ArgsUsage:   "REF",
		Description: refHelp + " A name must stand for one instance.",
		Flags:       clientFlags(),
		Action: asClient(func(ctx context.Context, c *client) error {
			args, err := exactly(c.Context, "REF")
			if err != nil {
				return err
			}
			resp, err := ask(ctx, c, c.control.QueryInstance, &pb.QueryInstanceRequest{Ref: args[0]})
			if err != nil {
				return err
			}
			instance := api.FromInstance(resp.GetInstance())
			if c.json {
				return printJSON(c.out(), instance)
			}
			return instanceFields(c.out(), instance)
		}),
	}
}

func stopCommand() *cli.Command {
	return &cli.Command{
		Name:        "stop",
		Usage:       "stop instances",
		ArgsUsage:   "REF...",
		Description: refHelp + " A name stops all instances of that name.",
		Flags:       clientFlags(),
		Action: asClient(func(ctx context.Context, c *client) error {
			refs := c.Args().Slice()
			if len(refs) == 0 {
				return usagef(c.Context, "REF is missing")
			}
			if err := noLateFlags(c.Context, refs); err != nil {
				return err
			}
			resp, err := ask(ctx, c, c.control.StopInstance, &pb.StopInstanceRequest{Refs: refs})
			if err != nil {
				return err
			}
			for _, note := range resp.GetNotes() {
				c.note("%s", note)
			}
			return printInstances(c.out(), c.json, api.FromInstances(resp.GetInstances()))
		}),
	}
}
