package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
)

// envName returns the environment variable of a flag.
func envName(flag string) string {
	return "WASMATRIX_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func env(flag string) []string { return []string{envName(flag)} }

// parseSize reads a size such as 64MiB, 1.5GiB, 64MB (of 1,000,000 bytes each) or 65536.
func parseSize(s string) (uint64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || strings.Contains(s, ",") { // humanize takes 1,5GiB for 15GiB
		return 0, fmt.Errorf("%q is no size; it would be like 64MiB, 64MB, 1.5GiB or a number of bytes", s)
	}
	return n, nil
}

// formatSize writes a size for people, in the largest unit that keeps it exact to a tenth.
func formatSize(n uint64) string {
	for _, u := range []struct {
		suffix string
		bytes  uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64), ".0") + u.suffix
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

// formatRate writes how often something happens in a second, to about three digits.
func formatRate(perSecond float64) string {
	digits := 2
	switch {
	case perSecond == 0 || perSecond >= 99.95:
		digits = 0
	case perSecond >= 9.995:
		digits = 1
	}
	return strconv.FormatFloat(perSecond, 'f', digits, 64)
}

// formatSeconds writes a short time to two digits; nothing for none.
func formatSeconds(seconds *float64) string {
	if seconds == nil {
		return ""
	}
	d := time.Duration(*seconds * float64(time.Second))
	unit := time.Nanosecond
	for d >= 100*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}

// parsePairs reads a list of K=V. A key that comes again replaces the earlier value.
func parsePairs(list []string) (map[string]string, error) {
	pairs := make(map[string]string, len(list))
	for _, item := range list {
		key, value, ok := strings.Cut(item, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is no K=V", item)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// splitCommas splits the items of a list that may also be given as one, with commas.
func splitCommas(list []string) []string {
	var items []string
	for _, item := range list {
		for part := range strings.SplitSeq(item, ",") {
			if part = strings.TrimSpace(part); part != "" {
				items = append(items, part)
			}
		}
	}
	return items
}

// sizeOf reads a flag that is a size.
func sizeOf(c *cli.Context, flag string) (uint64, error) {
	n, err := parseSize(c.String(flag))
	if err != nil {
		return 0, usagef(c, "--%s: %s", flag, err)
	}
	return n, nil
}

// pairsOf reads a flag that is a list of K=V.
func pairsOf(c *cli.Context, flag string, list []string) (map[string]string, error) {
	pairs, err := parsePairs(list)
	if err != nil {
		return nil, usagef(c, "--%s: %s", flag, err)
	}
	return pairs, nil
}

// flagsFirst moves flags that stand after arguments, as in `logs web -f`, to where the library reads them. What follows --
// is no flag. Only those of run and dev must come before the module: what stands after that may be meant for the guest.
func flagsFirst(app *cli.App, args []string) []string {
	command, at := commandOf(app.Commands, args)
	if command == nil || command.Name == "run" || command.Name == "dev" || command.SkipFlagParsing {
		return args
	}
	var flags, others []string
	for rest := args[at:]; len(rest) > 0; rest = rest[1:] {
		switch word := rest[0]; {
		case word == "--":
			return slices.Concat(args[:at], flags, rest[:1], others, rest[1:])
		case len(word) < 2 || word[0] != '-':
			others = append(others, word)
		case takesNext(command, word) && len(rest) > 1:
			flags = append(flags, word, rest[1])
			rest = rest[1:]
		default:
			flags = append(flags, word)
		}
	}
	return slices.Concat(args[:at], flags, others)
}

// commandOf returns the command that a command line leads to, and where its own words begin. It is nil where they lead to
// none, or to one that only groups others.
func commandOf(commands []*cli.Command, args []string) (command *cli.Command, at int) {
	for at = 1; at < len(args); at++ {
		n := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[at]) })
		if n < 0 {
			break
		}
		command, commands = commands[n], commands[n].Subcommands
	}
	if len(commands) > 0 {
		return nil, at
	}
	return command, at
}

// takesNext says whether the word after a flag is its value. Of one that nobody knows it does not matter: it is an error.
func takesNext(c *cli.Command, flag string) bool {
	name := strings.TrimLeft(flag, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range c.Flags {
		if _, alone := f.(*cli.BoolFlag); !alone && slices.Contains(f.Names(), name) {
			return true
		}
	}
	return false
}
