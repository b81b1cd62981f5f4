package cli

import (
	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/logging"
)

// newLog returns what the node logs with, on stderr.
func newLog(c *cli.Context) (*logging.Log, error) {
	level, err := logging.ParseLevel(c.String("log-level"))
	if err != nil {
		return nil, usagef(c, "--log-level %s", err)
	}
	log, err := logging.New(logging.Config{Level: level, Format: c.String("log-format"), Out: c.App.ErrWriter})
	if err != nil {
		return nil, usagef(c, "--log-format %s", err)
	}
	return log, nil
}
