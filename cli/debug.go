package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// nodeFilesMost bounds what one node may send for a bug report; a busy one sends some megabytes.
const nodeFilesMost = 256 << 20

func debugCommand() *cli.Command {
	return &cli.Command{
		Name:      "debug",
		Usage:     "collect what a bug report needs",
		ArgsUsage: " ",
		Description: "Writes a .tar.gz, which only you can read: what the cluster says of itself, and of the node that is asked, or those of --node\n" +
			"or --all, logs, metrics, profiles, settings and facts of its host. Its README.txt says what is what, and errors.txt which nodes\n" +
			"did not answer. Passwords of providers and in URLs are left out, and what guests were given and wrote, unless --with-guest-data.\n" +
			"Names, labels, addresses and the reasons of crashes are in it: look before you send it to somebody.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "file", Usage: "write to this `FILE`", DefaultText: "wasmatrix-debug-TIME.tar.gz", EnvVars: env("file")},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "watch for this `TIME` what the processors are used for, a minute at most; 0s for not at all", EnvVars: env("duration")},
			&cli.BoolFlag{Name: "with-guest-data", Usage: "also arguments, environment and the last output of instances: they may hold secrets", EnvVars: env("with-guest-data")},
			nodeFlag(), allNodesFlag(),
		),
		Action: asClient(collectDebug),
	}
}

// debugBundle is what operator debug prints with JSON.
type debugBundle struct {
	File      string   `json:"file"`
	SizeBytes int64    `json:"size_bytes"`
	Nodes     []string `json:"nodes"`
	Errors    []string `json:"errors"`
}

func collectDebug(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	d := c.Duration("duration")
	if d < 0 || d > time.Minute {
		return usagef(c.Context, "--duration %s: want from 0s to 1m", d)
	}
	now := time.Now().UTC()
	name := "wasmatrix-debug-" + now.Format("20060102-150405")
	path := c.String("file")
	if path == "" {
		path = name + ".tar.gz"
	}
	nodes, err := c.nodesMeant(ctx)
	if err != nil { // a cluster that can't say who is there is one for a bug report
		c.note("not of all nodes, only of the one that is asked: %s", err)
		nodes = []string{""}
	}
	out, err := newBundle(path, name)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer out.discard()
	c.clusterFiles(ctx, out)
	errs := forEachNode(nodes, func(_ int, node string) error {
		req := &pb.CollectDebugRequest{Node: node, WithGuestData: c.Bool("with-guest-data")}
		if d > 0 {
			req.CpuFor = durationpb.New(d)
		}
		return c.nodeFiles(ctx, out, req, d)
	})
	if len(out.nodes) == 0 {
		return errs[0]
	}
	for i, err := range errs {
		if err != nil {
			out.fail("node %s: %s", nodes[i], rpc.FromError(err).Message)
		}
	}
	size, err := out.finish(readme(name, now, c.Bool("with-guest-data")))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	slices.Sort(out.nodes)
	made := debugBundle{File: path, SizeBytes: size, Nodes: out.nodes, Errors: append([]string{}, out.errs...)}
	if c.json {
		return printJSON(c.out(), made)
	}
	for _, e := range made.Errors {
		c.note("missing: %s", e)
	}
	_, err = fmt.Fprintf(c.out(), "%s  %s, of %s\n", clean(path), formatSize(uint64(size)), clean(strings.Join(made.Nodes, ", ")))
	return err
}

// clusterFiles writes what the cluster says of itself, whichever of it can be had.
func (c *client) clusterFiles(ctx context.Context, out *bundle) {
	put := func(file string, get func(ctx context.Context) (any, error)) {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		shape, err := get(ctx)
		if err == nil {
			err = out.addJSON("cluster/"+file, shape)
		}
		if err != nil {
			out.fail("cluster/%s: %s", file, rpc.FromError(err).Message)
		}
	}
	put("status.json", func(ctx context.Context) (any, error) {
		resp, err := c.control.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
		return api.FromStatus(resp), err
	})
	put("members.json", func(ctx context.Context) (any, error) {
		resp, err := c.control.ListMembers(ctx, &pb.ListMembersRequest{})
		return api.FromMembers(resp.GetMembers()), err
	})
	put("raft.json", func(ctx context.Context) (any, error) {
		resp, err := c.byHand.ListRaft(ctx, &pb.ListRaftRequest{})
		servers := []raftServer{}
		for _, s := range resp.GetServers() {
			servers = append(servers, raftServerOf(s))
		}
		return servers, err
	})
	put("providers.json", func(ctx context.Context) (any, error) {
		resp, err := c.providers.ListProviders(ctx, &pb.ListProvidersRequest{})
		return api.FromProviders(resp.GetProviders()), err
	})
	put("instances.json", func(ctx context.Context) (any, error) {
		all, err := c.allInstances(ctx)
		if !c.Bool("with-guest-data") {
			for i := range all {
				all[i].Args = nil
			}
		}
		return all, err
	})
	put("events.json", func(ctx context.Context) (any, error) {
		events := []api.Event{}
		_, err := c.watch(ctx, &pb.WatchEventsRequest{}, func(e *pb.Event) error {
			events = append(events, api.FromEvent(e))
			return nil
		})
		return events, err
	})
}

func (c *client) allInstances(ctx context.Context) ([]api.Instance, error) {
	all := []api.Instance{}
	stream, err := c.control.ListInstances(ctx, &pb.ListInstancesRequest{All: true})
	if err != nil {
		return all, err
	}
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, api.FromInstances(page.GetInstances())...)
	}
}

// plainName is what a node or a file of its may be called, so that nothing is written elsewhere than in the bundle.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// nodeFiles writes what one node sends. What came before an error is kept.
func (c *client) nodeFiles(ctx context.Context, out *bundle, req *pb.CollectDebugRequest, watched time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, watched+c.timeout)
	defer cancel()
	stream, err := c.byHand.CollectDebug(ctx, req)
	if err != nil {
		return err
	}
	var name string
	var files []string // in the order in which they came
	content := map[string][]byte{}
	total := 0
	for err == nil {
		var piece *pb.CollectDebugResponse
		if piece, err = stream.Recv(); err != nil {
			break
		}
		if name, total = piece.GetNodeName(), total+len(piece.GetData()); total > nodeFilesMost {
			err = fmt.Errorf("it sends more than %s", formatSize(nodeFilesMost))
			break
		}
		file := piece.GetFile()
		if !plainName.MatchString(name) || !plainName.MatchString(file) {
			err = fmt.Errorf("it calls itself %q, and a file %q", name, file)
			break
		}
		if _, begun := content[file]; !begun {
			files = append(files, file)
		}
		content[file] = append(content[file], piece.GetData()...)
		if piece.GetError() != "" {
			out.fail("nodes/%s/%s: %s", name, file, piece.GetError())
		}
	}
	for _, file := range files {
		if addErr := out.add(filepath.ToSlash(filepath.Join("nodes", name, file)), content[file]); addErr != nil {
			return addErr
		}
	}
	if len(files) > 0 {
		out.answered(name)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
