package cli

import (
	_ "embed"
	"io"

	"github.com/urfave/cli/v2"
)

// The scripts ask `wasmatrix __complete` for words, so that they need not change with the commands.
var (
	//go:embed completion/wasmatrix.bash
	bashCompletion string
	//go:embed completion/wasmatrix.zsh
	zshCompletion string
	//go:embed completion/wasmatrix.fish
	fishCompletion string
)

func completionCommand() *cli.Command {
	script := func(shell, script, help string) *cli.Command {
		return &cli.Command{
			Name:        shell,
			Usage:       "print the completion script for " + shell,
			ArgsUsage:   " ",
			Description: help,
			Action: func(c *cli.Context) error {
				if _, err := exactly(c); err != nil {
					return err
				}
				_, err := io.WriteString(c.App.Writer, script)
				return err
			},
		}
	}
	return &cli.Command{
		Name:      "completion",
		Usage:     "complete commands, flags, ids and names at the prompt of a shell",
		ArgsUsage: "SHELL",
		Subcommands: []*cli.Command{
			script("bash", bashCompletion, "For this shell: `source <(wasmatrix completion bash)`. For all of yours: add that line to ~/.bashrc. For everybody:\n"+
				"`wasmatrix completion bash >/usr/share/bash-completion/completions/wasmatrix`.\n\n"+completionHelp),
			script("zsh", zshCompletion, "For this shell: `source <(wasmatrix completion zsh)`. For all of yours: add that line to ~/.zshrc, below compinit.\n"+
				"For everybody: `wasmatrix completion zsh >/usr/share/zsh/vendor-completions/_wasmatrix`.\n\n"+completionHelp),
			script("fish", fishCompletion, "For this shell: `wasmatrix completion fish | source`. For all of yours:\n"+
				"`wasmatrix completion fish >~/.config/fish/completions/wasmatrix.fish`. For everybody:\n"+
				"`wasmatrix completion fish >/usr/share/fish/vendor_completions.d/wasmatrix.fish`.\n\n"+completionHelp),
		},
	}
}

const completionHelp = "Instances, nodes, modules and providers are those of the node at --addr or $WASMATRIX_ADDR, which has a second to answer."

// completeCommand is what the scripts call, with the words of the line up to the cursor.
func completeCommand() *cli.Command {
	return &cli.Command{
		Name:            "__complete",
		Hidden:          true,
		SkipFlagParsing: true, // the flags are those of the line
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) == 0 {
				words = []string{""}
			}
			return (&completer{app: c.App}).propose(append([]string{c.App.Name}, words...)).print(c.App.Writer)
		},
	}
}
