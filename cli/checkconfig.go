package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/node"
)

// checkConfig says what would keep a node from starting, or where it has what is not its default from.
func checkConfig(c *cli.Context, build Build) error {
	s, err := readSettings(c)
	if err == nil {
		err = checkSettings(s, build)
	}
	if wrong, ok := errors.AsType[*wrongSettings](err); ok {
		for _, problem := range wrong.problems {
			fmt.Fprintln(c.App.Writer, clean(problem))
		}
		return usagef(c, "the configuration is wrong in %s; a node would not start", count(len(wrong.problems), "place"))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "ok")
	var rows [][]string
	for _, f := range s.Command.Flags {
		if name := f.Names()[0]; s.given(name) && !slices.Contains(notInFile, name) {
			rows = append(rows, []string{name, s.value(f).shown, s.origins[name]})
		}
	}
	if rows == nil {
		return nil
	}
	return table(c.App.Writer, []column{{heading: "SETTING"}, {heading: "VALUE", least: 10}, {heading: "FROM"}}, rows)
}

// checkSettings says what is wrong with settings, and with what they name on this host.
func checkSettings(s *settings, build Build) error {
	log, wrongLog := newLog(s)
	if log != nil {
		log.Level.Close()
	}
	cfg, err := agentConfig(s, build)
	if err == nil {
		err = node.Check(cfg)
	}
	if err = errors.Join(wrongLog, err); err != nil {
		return s.wrong(err)
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
