package cli

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/logging"
)

// notInFile are the flags of the agent that only the command line and the environment have.
var notInFile = []string{"config", "check-config"}

// settings are the flags of the agent, completed: the command line goes before the environment, that before the file, and
// that before the default.
type settings struct {
	*cli.Context

	// Where each flag has its value from that has not its default: "command line", an environment variable, or FILE:LINE:COLUMN.
	origins map[string]string
}

const fromCommandLine = "command line"

// readSettings reads the flags that the command was given, the environment, and the file that one of them names. It can be
// called again to see what has changed since. The error has all that is wrong with the file.
func readSettings(c *cli.Context) (*settings, error) {
	flags := agentFlags()
	set := flag.NewFlagSet(c.Command.Name, flag.ContinueOnError)
	for _, f := range flags {
		if text, ok := f.(*cli.StringFlag); ok && os.Getenv(envName(text.Name)) == "" {
			text.EnvVars = nil // or nothing would be taken for its value
		}
		if err := f.Apply(set); err != nil {
			return nil, usagef(c, "%s", err)
		}
	}
	if err := set.Parse(c.Lineage()[1].Args().Tail()); err != nil { // read once already
		return nil, usagef(c, "%s", err)
	}
	s := &settings{Context: cli.NewContext(c.App, set, nil), origins: map[string]string{}}
	s.Command = &cli.Command{Name: c.Command.Name, HelpName: c.Command.HelpName, Flags: flags}
	s.Context.Context = c.Context
	for _, f := range flags {
		if name := f.Names()[0]; os.Getenv(envName(name)) != "" {
			s.origins[name] = envName(name)
		}
	}
	set.Visit(func(f *flag.Flag) { s.origins[f.Name] = fromCommandLine })
	if s.String("config") == "" {
		return s, nil
	}
	inFile := slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool { return slices.Contains(notInFile, f.Names()[0]) })
	file, err := readConfigFile(s.String("config"), inFile)
	if err != nil {
		return nil, s.wrong(err)
	}
	for name, one := range file {
		if s.origins[name] != "" {
			continue
		}
		s.origins[name] = one.place
		for _, value := range one.values {
			if err := set.Set(name, value); err != nil {
				return nil, s.wrong(fmt.Errorf("%s: %s: %w", one.place, name, err))
			}
		}
	}
	return s, nil
}

// given says whether a flag has not its default.
func (s *settings) given(name string) bool { return s.origins[name] != "" }

// value is what a flag is set to.
type value struct {
	text  string // as people write it
	shown string // without what may be secret in it
	from  string // empty where it is the default
}

// value returns what a flag is set to.
func (s *settings) value(f cli.Flag) value {
	name := f.Names()[0]
	v := value{text: fmt.Sprint(s.Value(name)), from: s.origins[name]}
	items := []string{v.text}
	if list, ok := s.Value(name).(cli.StringSlice); ok {
		items = splitCommas(list.Value())
		v.text = strings.Join(items, ", ")
	}
	if doc, ok := f.(cli.DocGenerationFlag); ok && v.from == "" {
		v.text = strings.Trim(doc.GetDefaultText(), `"`) // where it depends, this says on what
		items = []string{v.text}
	}
	for i := range items {
		if valueName(f) == "URL" {
			items[i] = hostOf(items[i])
		}
	}
	v.shown = logging.WithoutUserinfo(strings.Join(items, ", "))
	return v
}

// hostOf returns what of a URL is no secret: with many a receiver of webhooks its path is one.
func hostOf(address string) string {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return ""
	case err != nil || u.Host == "":
		return "REDACTED"
	case strings.Trim(u.Path, "/")+u.RawQuery == "":
		return u.Scheme + "://" + u.Host
	}
	return u.Scheme + "://" + u.Host + "/REDACTED"
}

// wrongSettings is all that is wrong with a configuration.
type wrongSettings struct{ problems []string }

func (e *wrongSettings) Error() string { return strings.Join(e.problems, "; ") }

var flagInMessage = regexp.MustCompile(`--([a-z][a-z-]*)`)

// wrong makes errors, joined or not, those of a wrong command line. Each that names a flag whose value stands elsewhere says
// where.
func (s *settings) wrong(err error) error {
	all := &wrongSettings{}
	for _, one := range unjoin(err) {
		message := one.Error()
		for _, m := range flagInMessage.FindAllStringSubmatch(message, -1) {
			if from := s.origins[m[1]]; from != "" && from != fromCommandLine {
				message = from + ": " + message
				break
			}
		}
		all.problems = append(all.problems, message)
	}
	return &usageError{command: commandName(s.Context), message: all.Error(), cause: all}
}

// unjoin returns the single errors that were joined to one.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error }) // not one that is wrapped, which says something more
	if !ok {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, unjoin(one)...)
	}
	return all
}
