package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// Build says which build this is.
type Build struct {
	Version string
	Commit  string
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main runs one command line, its first word being the program's name, and returns the exit code.
func Main(args []string, stdout, stderr io.Writer, build Build) int {
	app := newApp(stdout, stderr, build)
	err := app.Run(flagsFirst(app, args))
	if err == nil {
		return exitDone
	}
	usage, wrong := errors.AsType[*usageError](err)
	if _, ok := errors.AsType[cli.ExitCoder](err); ok && !wrong { // `help` for something that is not there
		usage, wrong = &usageError{command: "wasmatrix", message: err.Error()}, true
	}
	if wrong {
		err = rpc.Errorf(rpc.InvalidRequest, "%w", usage)
	}
	if wantsJSON(args) {
		printJSON(stderr, api.FromError(err)) //nolint:errcheck // nowhere left to tell
	} else {
		e := rpc.FromError(err)
		fmt.Fprintf(stderr, "%s %s (%s)\n", screenOf(stderr).paint(red, "error:"), clean(e.Message), e.Code)
		if id := e.Details[tracing.CorrelationKey]; e.Code == rpc.Internal && id != "" {
			fmt.Fprintf(stderr, "the logs of the nodes say more under correlation id %s\n", clean(id))
		}
		if wrong {
			fmt.Fprintf(stderr, "see `%s --help`\n", usage.command)
		}
	}
	if wrong {
		return exitUsage
	}
	return exitFailed
}

// usageError is a command line that cannot be understood.
type usageError struct {
	command string // the full name of the command whose help tells what is right
	message string
	cause   error // where there is more to say than the message
}

func (e *usageError) Error() string { return e.message }

func (e *usageError) Unwrap() error { return e.cause }

func usagef(c *cli.Context, format string, args ...any) error {
	return &usageError{command: commandName(c), message: fmt.Sprintf(format, args...)}
}

// commandName returns the words that lead to the command, the program's name included.
func commandName(c *cli.Context) string {
	if c.Command != nil && c.Command.HelpName != "" {
		return c.Command.HelpName
	}
	return c.App.Name
}

func newApp(stdout, stderr io.Writer, build Build) *cli.App {
	app := &cli.App{
		Name:      "wasmatrix",
		HelpName:  "wasmatrix",
		Usage:     "run WebAssembly across hosts",
		UsageText: "wasmatrix COMMAND [flags] [arguments]",
		Description: "Start a node with `wasmatrix agent`, more with `wasmatrix agent --join ADDR`, and give any of\n" +
			"them work with `wasmatrix run`. Each flag can also be set by an environment variable.",
		Version:     build.Version,
		HideVersion: true,
		Writer:      stdout,
		ErrWriter:   stderr,
		Commands: []*cli.Command{
			agentCommand(build), devCommand(build),
			runCommand(), psCommand(), inspectCommand(), stopCommand(), logsCommand(),
			eventsCommand(),
			membersCommand(), statusCommand(), topCommand(), nodeCommand(),
			capabilityCommand(), providerCommand(),
			moduleCommand(),
			operatorCommand(),
			completionCommand(), completeCommand(), manCommand(build),
			versionCommand(build),
		},
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}},
		Action: atRoot(build),
		// The values of lists may hold commas; lists that are split are split where they are read.
		DisableSliceFlagSeparator: true,
		// Errors are printed in one place, which is Main.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   wrongFlags,
	}
	for _, c := range app.Commands {
		complete(c, app.Name)
	}
	return app
}

// complete gives a command and those below it what all have.
func complete(c *cli.Command, above string) {
	words := []string{above, c.Name}
	if len(c.Flags) > 0 {
		words = append(words, "[flags]")
	}
	c.UsageText = strings.TrimSpace(strings.Join(append(words, c.ArgsUsage), " "))
	c.OnUsageError = wrongFlags
	c.HideHelpCommand = true
	if len(c.Subcommands) > 0 {
		c.Action = atGroup
	}
	for _, sub := range c.Subcommands {
		complete(sub, above+" "+c.Name)
	}
}

func wrongFlags(c *cli.Context, err error, _ bool) error { return usagef(c, "%s", err) }

// atRoot runs where the first word is no command.
func atRoot(build Build) cli.ActionFunc {
	return func(c *cli.Context) error {
		switch {
		case c.Args().Present():
			return &usageError{command: c.App.Name, message: fmt.Sprintf("there is no command %q", c.Args().First())}
		case c.Bool("version"):
			return printVersion(c.App.Writer, build, false)
		default:
			return cli.ShowAppHelp(c)
		}
	}
}

// atGroup runs where a command that only groups others is not followed by one of them.
func atGroup(c *cli.Context) error {
	var names []string
	for _, sub := range c.Command.Subcommands {
		if sub.Name != "help" {
			names = append(names, sub.Name)
		}
	}
	if c.Args().Present() {
		return usagef(c, "%s has no command %q; it has %s", c.Command.Name, c.Args().First(), strings.Join(names, ", "))
	}
	return usagef(c, "%s wants one of its commands: %s", c.Command.Name, strings.Join(names, ", "))
}

// exactly returns the arguments if there are as many as there are names for them.
func exactly(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	switch {
	case len(args) < len(names):
		return nil, usagef(c, "%s is missing", names[len(args)])
	case len(args) > len(names):
		return nil, usagef(c, "%q is one argument too many", args[len(names)])
	}
	return args, nil
}

// wantsJSON says whether a command line asks for JSON, also one that cannot be parsed.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	format := os.Getenv(envName("output"))
	for i, arg := range args {
		name, value, joined := strings.Cut(arg, "=")
		if name != "-o" && name != "--o" && name != "-output" && name != "--output" {
			continue
		}
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		format = value
	}
	return format == "json"
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printJSONLine prints one object on one line.
func printJSONLine(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
