package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const backendHelp = "Backends of kv: raft: (replicated over the voters; the default), memory: (in one node's memory, and gone with it),\n" +
	"redis://HOST:PORT, etcd://HOST:PORT, nats://HOST:PORT (JetStream). Of messaging: embedded: (the default), nats://HOST:PORT.\n" +
	"Of http: direct:. Passwords go into the URL; they are never shown again."

func providerCommand() *cli.Command {
	return &cli.Command{
		Name:      "provider",
		Usage:     "run what guests can ask for: keys and values, HTTP, messages",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:      "ls",
				Usage:     "list the providers",
				ArgsUsage: " ",
				Description: "A fresh cluster has kv, http and messaging. Calls, errors and latencies are those that guests of all nodes saw in\n" +
					"the last minute.",
				Flags:  clientFlags(),
				Action: asClient(listProviders),
			},
			{
				Name:      "inspect",
				Usage:     "show one provider, and what is wrong with it",
				ArgsUsage: "ID",
				Flags:     clientFlags(),
				Action:    asClient(inspectProvider),
			},
			{
				Name:      "start",
				Usage:     "add a provider, or start one again that was stopped",
				ArgsUsage: "TYPE",
				Description: "TYPE is kv, http or messaging.\n" + backendHelp + "\n\n" +
					"    wasmatrix provider start kv --id cache --backend redis://10.0.0.9:6379 --set timeout=2s\n" +
					"    wasmatrix provider start kv --id local --backend memory: --on disk=ssd",
				Flags: clientFlags(slices.Concat([]cli.Flag{
					&cli.StringFlag{Name: "id", Usage: "call it this `ID`, by which it is granted", EnvVars: env("id")},
				}, providerFlags())...),
				Action: asClient(startProvider),
			},
			{
				Name:        "stop",
				Usage:       "stop a provider; what its backend keeps is kept, but for memory:",
				ArgsUsage:   "ID",
				Description: "Guests that use it run on, and are told that it is not available.",
				Flags:       clientFlags(),
				Action:      asClient(stopProvider),
			},
			{
				Name:        "update",
				Usage:       "change a provider's backend, configuration or nodes",
				ArgsUsage:   "ID",
				Description: "Instances that use it run on. What is kept in the old backend stays there.\n" + backendHelp,
				Flags:       clientFlags(providerFlags()...),
				Action:      asClient(updateProvider),
			},
		},
	}
}

func providerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "backend", Usage: "use the engine at this `URL`", DefaultText: "the type's own", EnvVars: env("backend")},
		&cli.StringSliceFlag{Name: "on", Usage: "run only on nodes with the label `K=V`; other nodes' guests reach it there; repeatable, or with commas", EnvVars: env("on")},
		&cli.StringSliceFlag{Name: "set", Usage: "configure `K=V`: timeout=5s for one call; for http max_body=10MiB; repeatable", EnvVars: env("set")},
	}
}

func listProviders(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.providers.ListProviders, &pb.ListProvidersRequest{})
	if err != nil {
		return err
	}
	all := api.FromProviders(resp.GetProviders())
	if c.json {
		return printJSON(c.out(), all)
	}
	return providerTable(c.out(), all)
}

func providerTable(w io.Writer, all []api.Provider) error {
	rows := make([][]string, 0, len(all))
	for _, p := range all {
		rows = append(rows, []string{
			p.ProviderID, p.ProviderType, p.State, p.Backend, strings.Join(p.Nodes, ","),
			formatRate(p.Calls.CallsPerSecond), formatRate(p.Calls.ErrorsPerSecond), formatSeconds(p.Calls.LatencyP50Seconds), formatSeconds(p.Calls.LatencyP99Seconds),
			firstFailure(p),
		})
	}
	return table(w, []column{
		{heading: "ID"}, {heading: "TYPE", spare: 2}, {heading: "STATE", states: true}, {heading: "BACKEND", least: 16, spare: 3},
		{heading: "NODES", least: 12, spare: 4}, {heading: "CALLS/S", spare: 5}, {heading: "ERRORS/S", spare: 6}, {heading: "P50", spare: 8}, {heading: "P99", spare: 7},
		{heading: "ERROR", least: 20, spare: 1},
	}, rows)
}

func firstFailure(p api.Provider) string {
	for _, node := range slices.Sorted(maps.Keys(p.Failures)) {
		return node + ": " + p.Failures[node]
	}
	return ""
}

func inspectProvider(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "ID")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.providers.ListProviders, &pb.ListProvidersRequest{ProviderId: args[0]})
	if err != nil {
		return err
	}
	return c.printProvider(resp.GetProviders()[0])
}

// callWords and latencyWords tell of the last minute.
func callWords(r api.CallRates) string {
	if r.LatencyP50Seconds == nil {
		return "none in the last minute"
	}
	return fmt.Sprintf("%s/s, %s errors/s in the last minute", formatRate(r.CallsPerSecond), formatRate(r.ErrorsPerSecond))
}

func latencyWords(r api.CallRates) string {
	if r.LatencyP50Seconds == nil {
		return ""
	}
	return fmt.Sprintf("half within %s, 99%% within %s", formatSeconds(r.LatencyP50Seconds), formatSeconds(r.LatencyP99Seconds))
}

func startProvider(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "TYPE")
	if err != nil {
		return err
	}
	if c.String("id") == "" {
		return usagef(c.Context, "--id is missing: by what id is it to be granted?")
	}
	config, on, err := providerConfig(c.Context)
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.providers.StartProvider, &pb.StartProviderRequest{Provider: &pb.Provider{
		ProviderId: c.String("id"), ProviderType: args[0], Config: config, Constraints: on,
	}})
	if err != nil {
		return err
	}
	return c.printProvider(resp.GetProvider())
}

func stopProvider(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "ID")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.providers.StopProvider, &pb.StopProviderRequest{ProviderId: args[0]})
	if err != nil {
		return err
	}
	return c.printProvider(resp.GetProvider())
}

func updateProvider(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "ID")
	if err != nil {
		return err
	}
	config, on, err := providerConfig(c.Context)
	if err != nil {
		return err
	}
	req := &pb.UpdateProviderRequest{ProviderId: args[0], Config: config}
	if c.IsSet("on") {
		req.On = &pb.ProviderNodes{Constraints: on}
	}
	resp, err := ask(ctx, c, c.providers.UpdateProvider, req)
	if err != nil {
		return err
	}
	return c.printProvider(resp.GetProvider())
}

// providerConfig reads the flags that say how a provider is to be.
func providerConfig(c *cli.Context) (config, on map[string]string, err error) {
	if config, err = pairsOf(c, "set", c.StringSlice("set")); err != nil {
		return nil, nil, err
	}
	if backend := c.String("backend"); backend != "" {
		config["backend"] = backend
	}
	on, err = pairsOf(c, "on", splitCommas(c.StringSlice("on")))
	return config, on, err
}

func (c *client) printProvider(s *pb.ProviderStatus) error {
	p := api.FromProvider(s)
	if c.json {
		return printJSON(c.out(), p)
	}
	return providerFields(c.out(), p)
}

func providerFields(w io.Writer, p api.Provider) error {
	all := []field{
		{"id", p.ProviderID},
		{"type", p.ProviderType},
		{"state", p.State},
		{"backend", p.Backend},
		{"configuration", pairs(p.Config)},
		{"on", pairs(p.On)},
		{"nodes", strings.Join(p.Nodes, ", ")},
		{"version", p.Version},
		{"calls", callWords(p.Calls)},
		{"latency", latencyWords(p.Calls)},
	}
	for _, node := range slices.Sorted(maps.Keys(p.Failures)) {
		all = append(all, field{"error on " + node, p.Failures[node]})
	}
	return fields(w, all)
}
