package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const permissionHelp = "ID is that of a provider; `wasmatrix provider ls` lists them. What each type permits: kv: kv:read, kv:write,\n" +
	"kv:delete in the bucket of the instance's name, and kv:bucket:NAME for others; http: http:request, narrowed to hosts by any\n" +
	"http:domain:HOST; messaging: msg:publish, msg:subscribe, or msg:publish:TOPIC, msg:subscribe:TOPIC."

func capabilityCommand() *cli.Command {
	return &cli.Command{
		Name:      "capability",
		Usage:     "change and show what a running instance may do",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:      "grant",
				Usage:     "give an instance permissions",
				ArgsUsage: "REF ID=PERM[,PERM...]...",
				Description: refHelp + " A name must stand for one instance. What it has already, it keeps.\n" + permissionHelp + "\n\n" +
					"    wasmatrix capability grant web kv=kv:read,kv:write http=http:request,http:domain:api.example.com",
				Flags:  clientFlags(),
				Action: asClient(grantCapability),
			},
			{
				Name:      "revoke",
				Usage:     "take permissions, or a whole capability, from an instance",
				ArgsUsage: "REF ID[=PERM,...]",
				Description: refHelp + " A name must stand for one instance. It acts on the guest's next call, and on one that\n" +
					"waits for a message. Taking the last http:domain takes http:request too, so that nothing is ever widened.\n\n" +
					"    wasmatrix capability revoke web kv=kv:write\n" +
					"    wasmatrix capability revoke web http",
				Flags:  clientFlags(),
				Action: asClient(revokeCapability),
			},
			{
				Name:        "ls",
				Usage:       "list what an instance may do",
				ArgsUsage:   "REF",
				Description: refHelp + " A name must stand for one instance.",
				Flags:       clientFlags(),
				Action:      asClient(listCapabilities),
			},
		},
	}
}

func grantCapability(ctx context.Context, c *client) error {
	args := c.Args().Slice()
	if len(args) < 2 {
		return usagef(c.Context, "%s is missing", []string{"REF", "ID=PERM"}[len(args)])
	}
	grants, err := parseGrants(c.Context, args[1:])
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.control.AssignCapability, &pb.AssignCapabilityRequest{Ref: args[0], Grants: grants})
	if err != nil {
		return err
	}
	return c.printGrants(resp.GetInstance())
}

func revokeCapability(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "REF", "ID")
	if err != nil {
		return err
	}
	req := &pb.RevokeCapabilityRequest{Ref: args[0], CapabilityId: args[1]}
	if strings.Contains(args[1], "=") {
		grants, err := parseGrants(c.Context, args[1:])
		if err != nil {
			return err
		}
		req.CapabilityId, req.Permissions = grants[0].GetCapabilityId(), grants[0].GetPermissions()
	}
	resp, err := ask(ctx, c, c.control.RevokeCapability, req)
	if err != nil {
		return err
	}
	return c.printGrants(resp.GetInstance())
}

func listCapabilities(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "REF")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.control.QueryInstance, &pb.QueryInstanceRequest{Ref: args[0]})
	if err != nil {
		return err
	}
	return c.printGrants(resp.GetInstance())
}

func (c *client) printGrants(i *pb.Instance) error {
	grants := api.FromGrants(i.GetGrants())
	if c.json {
		return printJSON(c.out(), grants)
	}
	rows := make([][]string, 0, len(grants))
	for _, g := range grants {
		rows = append(rows, []string{g.CapabilityID, g.ProviderType, strings.Join(g.Permissions, ",")})
	}
	return table(c.out(), []column{{heading: "CAPABILITY"}, {heading: "TYPE", spare: 1}, {heading: "PERMISSIONS"}}, rows)
}

// parseGrants reads ID=PERM[,PERM...] words.
func parseGrants(c *cli.Context, words []string) ([]*pb.Grant, error) {
	grants := make([]*pb.Grant, 0, len(words))
	for _, word := range words {
		g, err := capability.ParseGrant(word)
		if err != nil {
			return nil, usagef(c, "%s", err)
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// grantWords writes grants as they are given.
func grantWords(grants []api.Capability) string {
	words := make([]string, 0, len(grants))
	for _, g := range grants {
		words = append(words, fmt.Sprintf("%s=%s", g.CapabilityID, strings.Join(g.Permissions, ",")))
	}
	return strings.Join(words, " ")
}
