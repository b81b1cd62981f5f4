package cli

import (
	"context"
	"math"
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
			&cli.StringFlag{Name: "filter", Usage: "only those with this `TEXT` in their id, name, module hash, node's name or last error, in any case", EnvVars: env("filter")},
			&cli.StringSliceFlag{Name: "status", Usage: "only those that are `STATUS`, ended or not: " + strings.Join(api.Statuses(), ", ") + "; repeatable, or with commas", EnvVars: env("status")},
			&cli.StringFlag{Name: "sort", Value: "created", Usage: "order them by this `KEY`: " + strings.Join(api.Sorts(), ", "), EnvVars: env("sort")},
			&cli.BoolFlag{Name: "reverse", Aliases: []string{"r"}, Usage: "in the opposite order", DisableDefaultText: true, EnvVars: env("reverse")},
			&cli.UintFlag{Name: "limit", Usage: "show the first `N` only; 0 shows all", EnvVars: env("limit")},
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			req, err := listRequest(c.Context)
			if err != nil {
				return err
			}
			list, err := c.list(ctx, req)
			if err != nil {
				return err
			}
			if rest := list.Total - len(list.Instances); rest > 0 {
				c.note("%d more are not shown (--limit %d)", rest, req.GetLimit())
			}
			return printInstances(c.out(), c.json, api.FromInstances(list.Instances))
		}),
	}
}

// listRequest is what a command line of ps asks for.
func listRequest(c *cli.Context) (*pb.ListInstancesRequest, error) {
	req := &pb.ListInstancesRequest{
		All: c.Bool("all"), Name: c.String("name"), Node: c.String("node"), Filter: c.String("filter"), Descending: c.Bool("reverse"),
	}
	for _, word := range splitCommas(c.StringSlice("status")) {
		status, ok := api.StatusNamed(word)
		if !ok {
			return nil, usagef(c, "--status %q: want %s", word, strings.Join(api.Statuses(), ", "))
		}
		req.Statuses = append(req.Statuses, status)
	}
	req.All = req.All || len(req.Statuses) > 0 // an older leader knows no statuses
	if key := c.String("sort"); key != "" {    // empty: its environment variable is set to nothing
		sort, ok := api.SortNamed(key)
		if !ok {
			return nil, usagef(c, "--sort %q: want %s", key, strings.Join(api.Sorts(), ", "))
		}
		req.Sort = sort
	}
	if limit := c.Uint("limit"); limit <= math.MaxUint32 { // beyond that it is none
		req.Limit = uint32(limit)
	}
	return req, nil
}

// list returns the instances that are asked for, and notes when some may be missing.
func (c *client) list(ctx context.Context, req *pb.ListInstancesRequest) (list *api.List, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = rpc.Retry(ctx, func(ctx context.Context) error {
		stream, err := c.control.ListInstances(ctx, req)
		if err == nil {
			list, err = api.ReadList(req, stream)
		}
		return err
	})
	if err == nil && list.Recovering {
		c.note("the leader is new and still asks the nodes what they run: something may be missing")
	}
	if err == nil && len(list.Missing) > 0 {
		c.note("no answer from %s: what is listed there may be out of date, and something may be missing", strings.Join(list.Missing, ", "))
	}
	return list, err
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
