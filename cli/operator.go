package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func operatorCommand() *cli.Command {
	return &cli.Command{
		Name:      "operator",
		Usage:     "look into nodes and after the quorum by hand, on bad days",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:      "raft",
				Usage:     "look at the quorum and change it",
				ArgsUsage: "COMMAND",
				Subcommands: []*cli.Command{
					{
						Name:      "ls",
						Usage:     "list the quorum's members",
						ArgsUsage: " ",
						Description: "As the leader has it; without a leader, as the node that is asked does, which a note says.\n" +
							"BEHIND is how many entries a member's log lacks; it is empty where the member does not answer.",
						Flags:  clientFlags(),
						Action: asClient(listRaft),
					},
					{
						Name:      "remove",
						Usage:     "take the vote of a dead voter",
						ArgsUsage: "NODE",
						Description: "NODE is a name or an id. The cluster replaces dead voters by itself where another node is alive; this is\n" +
							"for what it can't know. Refused for the leader, for the living, and where too few living voters would be left.",
						Flags: clientFlags(
							&cli.BoolFlag{Name: "force", Usage: "also take the vote of a living node, or one whose loss may cost the quorum", EnvVars: env("force")},
						),
						Action: asClient(removeVoter),
					},
					{
						Name:        "transfer",
						Usage:       "hand leadership over",
						ArgsUsage:   " ",
						Description: "Returns when the new leader is known.",
						Flags: clientFlags(
							&cli.StringFlag{Name: "to", Usage: "to this `NODE`, by name or id; else to any voter", EnvVars: env("to")},
						),
						Action: asClient(transferLeadership),
					},
				},
			},
			snapshotCommand(),
			logLevelCommand(),
			debugCommand(),
			{
				Name:      "recover",
				Usage:     "found a new quorum when the old one is lost for ever",
				ArgsUsage: " ",
				Description: "The node at --addr becomes the only voter of a new quorum, with all the metadata that it has, and the cluster\n" +
					"adds further ones. No instance anywhere is interrupted. Old voters that come back later follow the new quorum.\n" +
					"Refused while somebody leads or enough voters live. Without --yes it only says what it would do.",
				Flags: clientFlags(
					&cli.BoolFlag{Name: "yes", Usage: "do it: the voters that are gone never come back", EnvVars: env("yes")},
					&cli.BoolFlag{Name: "force", Usage: "also where another survivor knows more, or does not answer", EnvVars: env("force")},
				),
				Action: asClient(recoverQuorum),
			},
		},
	}
}

// raftServer is what operator raft ls prints of one member with JSON.
type raftServer struct {
	NodeID  string `json:"node_id"`
	Name    string `json:"name"`
	RPCAddr string `json:"rpc_addr"`
	Role    string `json:"role"`  // leader or voter
	State   string `json:"state"` // as gossip sees it; unknown where it has not seen the node
	// Of its own word; null where it does not answer.
	Term       *uint64 `json:"term"`
	LastIndex  *uint64 `json:"last_index"`
	Generation *uint64 `json:"quorum_generation"`
}

func listRaft(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.byHand.ListRaft, &pb.ListRaftRequest{})
	if err != nil {
		return err
	}
	st := resp.GetState()
	if !st.GetLeads() {
		c.note("nobody leads; this is what node %s has, up to index %d in term %d of quorum %d", st.GetNodeName(), st.GetLastIndex(), st.GetTerm(), st.GetQuorumGeneration())
	}
	if len(resp.GetServers()) == 0 {
		c.note("node %s has no metadata: it is no voter, and knows none", st.GetNodeName())
	}
	servers := make([]raftServer, 0, len(resp.GetServers()))
	for _, s := range resp.GetServers() {
		servers = append(servers, raftServerOf(s))
	}
	if c.json {
		return printJSON(c.out(), servers)
	}
	return raftTable(c.out(), servers, st.GetLastIndex())
}

func raftServerOf(s *pb.RaftServer) raftServer {
	shape := raftServer{NodeID: s.GetNodeId(), Name: s.GetName(), RPCAddr: s.GetRpcAddr(), Role: "voter", State: cmp.Or(s.GetState(), "unknown")}
	if s.GetLeads() {
		shape.Role = "leader"
	}
	if r := s.GetRaft(); r != nil {
		term, last, generation := r.GetTerm(), r.GetLastIndex(), r.GetQuorumGeneration()
		shape.Term, shape.LastIndex, shape.Generation = &term, &last, &generation
	}
	return shape
}

func raftTable(w io.Writer, servers []raftServer, newest uint64) error {
	rows := make([][]string, 0, len(servers))
	for _, s := range servers {
		var term, last, behind string
		if s.Term != nil {
			term, last = fmt.Sprint(*s.Term), fmt.Sprint(*s.LastIndex)
			behind = fmt.Sprint(max(newest, *s.LastIndex) - *s.LastIndex)
		}
		rows = append(rows, []string{s.Name, s.NodeID, s.RPCAddr, s.Role, s.State, term, last, behind})
	}
	return table(w, []column{
		{heading: "NAME"}, {heading: "ID", spare: 3}, {heading: "RPC", spare: 2}, {heading: "ROLE"}, {heading: "STATE", states: true},
		{heading: "TERM", spare: 1}, {heading: "LAST INDEX"}, {heading: "BEHIND"},
	}, rows)
}

func removeVoter(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "NODE")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.byHand.RemoveVoter, &pb.RemoveVoterRequest{Node: args[0], Force: c.Bool("force")})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out(), map[string]string{"node_id": resp.GetNodeId(), "name": resp.GetName()})
	}
	_, err = fmt.Fprintf(c.out(), "node %s has no vote any more\n", clean(cmp.Or(resp.GetName(), resp.GetNodeId())))
	return err
}

func transferLeadership(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.byHand.TransferLeadership, &pb.TransferLeadershipRequest{To: c.String("to")})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out(), struct {
			NodeID string `json:"node_id"`
			Name   string `json:"name"`
			Term   uint64 `json:"term"`
		}{resp.GetLeaderId(), resp.GetLeaderName(), resp.GetTerm()})
	}
	_, err = fmt.Fprintf(c.out(), "node %s leads, in term %d\n", clean(resp.GetLeaderName()), resp.GetTerm())
	return err
}

// recovered is what operator recover prints with JSON.
type recovered struct {
	NodeID     string   `json:"node_id"`
	Name       string   `json:"name"`
	Generation uint64   `json:"quorum_generation"`
	Term       uint64   `json:"term"` // 0 before it is done
	LastIndex  uint64   `json:"last_index"`
	GivenUp    []string `json:"given_up"`
	Survivors  []string `json:"survivors"`
	Done       bool     `json:"done"`
}

func recoverQuorum(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	// Asked once: an answer that was lost is found with raft ls, and a repetition would be refused.
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.byHand.RecoverQuorum(ctx, &pb.RecoverQuorumRequest{DryRun: !c.Bool("yes"), Force: c.Bool("force")})
	if err != nil {
		return err
	}
	shape := recovered{
		NodeID: resp.GetFounderId(), Name: resp.GetFounderName(), Generation: resp.GetGeneration(), Term: resp.GetTerm(), LastIndex: resp.GetLastIndex(),
		GivenUp: append([]string{}, resp.GetGivenUp()...), Survivors: append([]string{}, resp.GetSurvivors()...), Done: c.Bool("yes"),
	}
	if c.json {
		err = printJSON(c.out(), shape)
	} else {
		err = recoveredFields(c.out(), shape)
	}
	if err == nil && !shape.Done {
		err = rpc.Errorf(rpc.InvalidRequest, "nothing was changed: make sure that the voters that are given up never come back by themselves, and give --yes")
	}
	return err
}

func recoveredFields(w io.Writer, r recovered) error {
	starts := fmt.Sprintf("with the metadata of %s, up to index %d", r.Name, r.LastIndex)
	if r.LastIndex == 0 {
		starts = fmt.Sprintf("with nothing but the cluster's id: %s never voted. Nodes register again by themselves; restore a snapshot for the rest", r.Name)
	}
	term := ""
	if r.Done {
		term = fmt.Sprint(r.Term)
	}
	return fields(w, []field{
		{"new quorum", fmt.Sprintf("number %d, founded by %s", r.Generation, r.Name)},
		{"starts", starts},
		{"given up", strings.Join(r.GivenUp, ", ")},
		{"survivors", strings.Join(r.Survivors, ", ")},
		{"leads in term", term},
	})
}
