package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/urfave/cli/v2"
)

func versionCommand(build Build) *cli.Command {
	return &cli.Command{
		Name:      "version",
		Usage:     "print version, commit and Go version",
		ArgsUsage: " ",
		Flags:     []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			asked, err := jsonAsked(c)
			if err != nil {
				return err
			}
			if _, err := exactly(c); err != nil {
				return err
			}
			return printVersion(c.App.Writer, build, asked)
		},
	}
}

func printVersion(w io.Writer, build Build, json bool) error {
	if json {
		return printJSON(w, struct {
			Version   string `json:"version"`
			Commit    string `json:"commit"`
			GoVersion string `json:"go_version"`
		}{build.Version, build.Commit, runtime.Version()})
	}
	_, err := fmt.Fprintf(w, "wasmatrix %s (commit %s, %s)\n", build.Version, build.Commit, runtime.Version())
	return err
}
