package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/logging"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func logLevelCommand() *cli.Command {
	return &cli.Command{
		Name:      "log-level",
		Usage:     "show or change from which level on nodes log",
		ArgsUsage: "[LEVEL]",
		Description: "LEVEL is debug, info, warn or error; without one it is only shown. Of the node that is asked, unless --node or --all says\n" +
			"otherwise. It holds until the node starts or reads its configuration again, or with --for so long.",
		Flags: clientFlags(
			&cli.DurationFlag{Name: "for", Usage: "after this `TIME` the level before holds again", EnvVars: env("for")},
			nodeFlag(), allNodesFlag(),
		),
		Action: asClient(changeLogLevel),
	}
}

func nodeFlag() cli.Flag {
	return &cli.StringFlag{Name: "node", Usage: "of this `NODE`, by name or id; the one that is asked passes it on", EnvVars: env("node")}
}

func allNodesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "all", Usage: "of all nodes that have not left", EnvVars: env("all")}
}

// nodesMeant returns the nodes that --node and --all mean; "" for the one that is asked.
func (c *client) nodesMeant(ctx context.Context) ([]string, error) {
	switch {
	case !c.Bool("all"):
		return []string{c.String("node")}, nil
	case c.String("node") != "":
		return nil, usagef(c.Context, "--node and --all: want one or the other")
	}
	resp, err := ask(ctx, c, c.control.ListMembers, &pb.ListMembersRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range api.FromMembers(resp.GetMembers()) {
		if m.State != "left" {
			names = append(names, m.Name)
		}
	}
	return names, nil
}

// nodesAtOnce is how many nodes are asked at the same time for what each of them is asked.
const nodesAtOnce = 8

// forEachNode calls do for each node, several at once, and returns what went wrong in the order of the nodes.
func forEachNode(nodes []string, do func(i int, node string) error) []error {
	errs := make([]error, len(nodes))
	turns := make(chan struct{}, nodesAtOnce)
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			errs[i] = do(i, node)
		})
	}
	wg.Wait()
	return errs
}

// logLevel is what operator log-level prints of one node with JSON.
type logLevel struct {
	NodeID string     `json:"node_id"`
	Name   string     `json:"name"`
	Level  string     `json:"level"`
	Until  *time.Time `json:"until"` // null where it lasts
	Then   string     `json:"then"`  // the level after that
}

func changeLogLevel(ctx context.Context, c *client) error {
	args := c.Args().Slice()
	if len(args) > 1 {
		return usagef(c.Context, "%q is one argument too many", args[1])
	}
	req := &pb.ChangeLogLevelRequest{Level: c.Args().First()}
	if req.GetLevel() != "" {
		if _, err := logging.ParseLevel(req.GetLevel()); err != nil {
			return usagef(c.Context, "LEVEL %s", err)
		}
	}
	if c.IsSet("for") {
		if d := c.Duration("for"); d <= 0 || req.GetLevel() == "" {
			return usagef(c.Context, "--for %s: want more than nothing, and a LEVEL that holds so long", d)
		}
		req.ValidFor = durationpb.New(c.Duration("for"))
	}
	nodes, err := c.nodesMeant(ctx)
	if err != nil {
		return err
	}
	answers := make([]*pb.ChangeLogLevelResponse, len(nodes))
	errs := forEachNode(nodes, func(i int, node string) (err error) {
		answers[i], err = ask(ctx, c, c.byHand.ChangeLogLevel, &pb.ChangeLogLevelRequest{Node: node, Level: req.GetLevel(), ValidFor: req.GetValidFor()})
		if err != nil && len(nodes) > 1 {
			err = rpc.Errorf(rpc.CodeOf(err), "node %s: %w", node, err)
		}
		return err
	})
	levels := make([]logLevel, 0, len(nodes))
	for _, a := range answers {
		if a != nil {
			levels = append(levels, logLevelOf(a))
		}
	}
	if len(levels) == 0 {
		return errs[0]
	}
	if c.json {
		err = printJSON(c.out(), levels)
	} else {
		err = logLevelTable(c, levels)
	}
	return cmp.Or(err, errors.Join(errs...))
}

func logLevelOf(a *pb.ChangeLogLevelResponse) logLevel {
	l := logLevel{NodeID: a.GetNodeId(), Name: a.GetNodeName(), Level: a.GetLevel(), Then: a.GetThenLevel()}
	if a.GetUntil() != nil {
		until := a.GetUntil().AsTime()
		l.Until = &until
	}
	return l
}

func logLevelTable(c *client, levels []logLevel) error {
	rows := make([][]string, 0, len(levels))
	for _, l := range levels {
		until := ""
		if l.Until != nil {
			until = fmt.Sprintf("%s, then %s", l.Until.Local().Format(time.DateTime+" -0700"), l.Then)
		}
		rows = append(rows, []string{l.Name, l.Level, until})
	}
	return table(c.out(), []column{{heading: "NODE"}, {heading: "LEVEL"}, {heading: "UNTIL"}}, rows)
}
