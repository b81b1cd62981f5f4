package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func membersCommand() *cli.Command {
	return &cli.Command{
		Name:        "members",
		Usage:       "list the nodes",
		ArgsUsage:   " ",
		Description: "As the leader knows them; without a leader, as the node that is asked does.",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "load", Usage: "show what they carry of what they take on at the most, and what their processes use", DisableDefaultText: true, EnvVars: env("load")},
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			resp, err := ask(ctx, c, c.control.ListMembers, &pb.ListMembersRequest{})
			if err != nil {
				return err
			}
			members := api.FromMembers(resp.GetMembers())
			if c.json {
				return printJSON(c.out(), members)
			}
			if c.Bool("load") {
				return loadTable(c.out(), members)
			}
			return memberTable(c.out(), members)
		}),
	}
}

func memberTable(w io.Writer, members []api.Member) error {
	rows := make([][]string, 0, len(members))
	for _, m := range members {
		rows = append(rows, []string{
			m.Name, m.Role, m.State, fmt.Sprint(m.Instances), m.GossipAddr, m.RPCAddr, m.HTTPAddr, pairs(m.Labels), m.Version,
		})
	}
	return table(w, []column{
		{heading: "NAME"}, {heading: "ROLE"}, {heading: "STATE", states: true}, {heading: "INSTANCES", spare: 1}, {heading: "GOSSIP", spare: 5},
		{heading: "RPC"}, {heading: "HTTP", spare: 3}, {heading: "LABELS", least: 12, spare: 2}, {heading: "VERSION", least: 8, spare: 4},
	}, rows)
}

func loadTable(w io.Writer, members []api.Member) error {
	rows := make([][]string, 0, len(members))
	for _, m := range members {
		row := []string{
			m.Name, m.Role, m.State, fmt.Sprintf("%d/%d", m.Instances, m.MaxInstances),
			formatSize(m.CommittedMemoryBytes) + "/" + formatSize(m.MaxMemoryBytes), promised(m), "", "", "", "", "", pairs(m.Labels),
		}
		if v := m.Vitals; v != nil {
			up := time.Duration(v.UpSeconds * float64(time.Second))
			copy(row[6:], []string{
				fmt.Sprintf("%.2f/%d", v.CPUUsedCores, v.CPUCores), formatSize(v.ResidentBytes), fmt.Sprint(v.Starts), fmt.Sprint(v.Crashes), lasted(up),
			})
		}
		rows = append(rows, row)
	}
	return table(w, []column{
		{heading: "NAME"}, {heading: "ROLE", spare: 3}, {heading: "STATE", states: true}, {heading: "INSTANCES"}, {heading: "COMMITTED"},
		{heading: "PROMISED", spare: 6}, {heading: "CPU"}, {heading: "RESIDENT"}, {heading: "STARTS", spare: 4}, {heading: "CRASHES", spare: 2}, {heading: "UP", spare: 5},
		{heading: "LABELS", least: 12, spare: 1},
	}, rows)
}

// promised is how much of a node's CPU its instances were promised, in cores; nothing where its version promises none.
func promised(m api.Member) string {
	if m.MaxCPUMillicores == 0 {
		return ""
	}
	cores := func(millicores uint32) string { return strconv.FormatFloat(float64(millicores)/1000, 'f', -1, 64) }
	return cores(m.CommittedCPUMillicores) + "/" + cores(m.MaxCPUMillicores)
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show the cluster at a glance",
		ArgsUsage: " ",
		Flags:     clientFlags(),
		Action: asClient(func(ctx context.Context, c *client) error {
			if _, err := exactly(c.Context); err != nil {
				return err
			}
			resp, err := ask(ctx, c, c.control.GetClusterStatus, &pb.GetClusterStatusRequest{})
			if err != nil {
				return err
			}
			status := api.FromStatus(resp)
			if c.json {
				return printJSON(c.out(), status)
			}
			return statusFields(c.out(), status)
		}),
	}
}

func statusFields(w io.Writer, s api.Status) error {
	var instances []string
	for _, word := range slices.Sorted(maps.Keys(s.Instances)) {
		instances = append(instances, fmt.Sprintf("%d %s", s.Instances[word], word))
	}
	if instances == nil {
		instances = []string{"none"}
	}
	recovering := ""
	if s.Recovering {
		recovering = "the leader is new and still asks the nodes what they run"
	}
	return fields(w, []field{
		{"cluster", s.ClusterName},
		{"cluster id", s.ClusterID},
		{"leader", s.Leader.Name},
		{"term", fmt.Sprint(s.Term)},
		{"recovering", recovering},
		{"no answer yet", strings.Join(s.MissingNodes, ", ")},
		{"voters", strings.Join(s.Voters, ", ")},
		{"members", fmt.Sprintf("%d alive, %d dead, %d left", s.Members.Alive, s.Members.Dead, s.Members.Left)},
		{"instances", strings.Join(instances, ", ")},
		{"version", s.Version},
	})
}

func nodeCommand() *cli.Command {
	return &cli.Command{
		Name:      "node",
		Usage:     "take nodes out of service and back",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:      "drain",
				Usage:     "move a node's instances away and keep new ones off",
				ArgsUsage: "NAME",
				Description: "Each instance is started elsewhere before it is stopped there. Instances with the restart policy\n" +
					"never stay, and the command then fails, naming them; the node drains all the same.",
				Flags:  clientFlags(),
				Action: asClient(drain),
			},
			{
				Name:      "resume",
				Usage:     "take a drain back",
				ArgsUsage: "NAME",
				Flags:     clientFlags(),
				Action:    asClient(resume),
			},
		},
	}
}

// drained is what node drain and node resume print with JSON.
type drained struct {
	Node    string         `json:"node"`
	State   string         `json:"state"`
	Moved   []api.Instance `json:"moved"`
	Unmoved []unmoved      `json:"unmoved"`
}

type unmoved struct {
	InstanceID string `json:"instance_id"`
	ErrorCode  string `json:"error_code"`
	Message    string `json:"message"`
}

func drain(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "NAME")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.control.DrainNode, &pb.DrainNodeRequest{Node: args[0]})
	if rpc.CodeOf(err) == rpc.Timeout {
		return rpc.Errorf(rpc.Timeout, "node %s is not drained yet; what was moved stays moved: ask again, with a longer --timeout: %w", args[0], err)
	}
	if err != nil {
		return err
	}
	if err := printDrained(c, args[0], resp); err != nil {
		return err
	}
	if left := resp.GetUnmoved(); len(left) > 0 {
		return rpc.Errorf(rpc.Code(left[0].GetErrorCode()), "%d of %d instances could not be moved; %s: %s",
			len(left), len(left)+len(resp.GetMoved()), left[0].GetInstanceId(), left[0].GetMessage())
	}
	return nil
}

func printDrained(c *client, node string, resp *pb.DrainNodeResponse) error {
	if c.json {
		answer := drained{Node: node, State: "draining", Moved: api.FromInstances(resp.GetMoved()), Unmoved: []unmoved{}}
		for _, f := range resp.GetUnmoved() {
			answer.Unmoved = append(answer.Unmoved, unmoved{f.GetInstanceId(), f.GetErrorCode(), f.GetMessage()})
		}
		return printJSON(c.out(), answer)
	}
	_, err := fmt.Fprintf(c.out(), "node %s takes no new instances; %d moved away\n", clean(node), len(resp.GetMoved()))
	if err != nil || len(resp.GetMoved()) == 0 {
		return err
	}
	return printInstances(c.out(), false, api.FromInstances(resp.GetMoved()))
}

func resume(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "NAME")
	if err != nil {
		return err
	}
	if _, err := ask(ctx, c, c.control.DrainNode, &pb.DrainNodeRequest{Node: args[0], Resume: true}); err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out(), drained{Node: args[0], State: "alive", Moved: []api.Instance{}, Unmoved: []unmoved{}})
	}
	_, err = fmt.Fprintf(c.out(), "node %s takes new instances again\n", clean(args[0]))
	return err
}
