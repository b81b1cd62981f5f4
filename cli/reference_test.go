package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// The reference is made from the command tree, so that it cannot be wrong.
func TestReferenceIsUpToDate(t *testing.T) {
	checkGolden(t, filepath.Join("..", "docs", "cli.md"), []byte(reference()))
}

func TestEachFlagHasItsEnvironmentVariable(t *testing.T) {
	for name, c := range commands() {
		for _, f := range c.Flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if !ok {
				t.Fatalf("%s: %v tells nothing of itself", name, f.Names())
			}
			if want := envName(f.Names()[0]); !slices.Equal(doc.GetEnvVars(), []string{want}) {
				t.Errorf("%s --%s: environment variables %v, want %s", name, f.Names()[0], doc.GetEnvVars(), want)
			}
			if doc.GetUsage() == "" {
				t.Errorf("%s --%s has no help", name, f.Names()[0])
			}
		}
	}
}

func tree() *cli.App { return newApp(io.Discard, io.Discard, Build{}) }

// commands returns the commands that can be run, by their full names.
func commands() map[string]*cli.Command {
	all := map[string]*cli.Command{}
	var add func(prefix string, list []*cli.Command)
	add = func(prefix string, list []*cli.Command) {
		for _, c := range list {
			if len(c.Subcommands) == 0 {
				all[prefix+c.Name] = c
			}
			add(prefix+c.Name+" ", c.Subcommands)
		}
	}
	add("", tree().Commands)
	return all
}

func reference() string {
	var b strings.Builder
	b.WriteString("# Command line\n\n<!-- Made from the command tree by `go test ./cli -update`. -->\n\n" +
		"Flags may stand before or after arguments; those of `run` before its module. Each flag can also be set by its environment variable.\n" +
		"Exit codes: 0 done, 1 the operation failed, 2 the command line was wrong.\n" +
		"Errors are printed on stderr as `error: MESSAGE (ERROR_CODE)`, or as JSON with `-o json`.\n\n" +
		"On a terminal that is too narrow, tables shorten long cells, and then leave out their least important columns: an … in the heading\n" +
		"says so. In a pipe they are whole. States and errors are colored on a terminal; not with `NO_COLOR` or `TERM=dumb`, and with\n" +
		"`CLICOLOR_FORCE=1` also elsewhere.\n\n" +
		"Ctrl-C ends a command at once, without a word, and a shell sees 130, also with `-f`; `agent` leaves in order and exits with 0.\n" +
		"A SIZE is like 64MiB (of 1,048,576 bytes), 64MB (of 1,000,000) or a number of bytes. A TIME is like 500ms, 10s or 2m.\n")
	for _, c := range tree().Commands {
		if c.Hidden {
			continue
		}
		describe(&b, "", c)
	}
	return b.String()
}

func describe(b *strings.Builder, prefix string, c *cli.Command) {
	if len(c.Subcommands) > 0 {
		for _, sub := range c.Subcommands {
			describe(b, prefix+c.Name+" ", sub)
		}
		return
	}
	synopsis := "wasmatrix " + prefix + c.Name
	if len(c.Flags) > 0 {
		synopsis += " [flags]"
	}
	if args := strings.TrimSpace(c.ArgsUsage); args != "" {
		synopsis += " " + args
	}
	fmt.Fprintf(b, "\n## wasmatrix %s%s\n\n`%s`: %s.\n", prefix, c.Name, synopsis, c.Usage)
	if c.Description != "" {
		fmt.Fprintf(b, "\n%s\n", c.Description)
	}
	if len(c.Flags) == 0 {
		return
	}
	b.WriteString("\n| flag | default | meaning | environment |\n| --- | --- | --- | --- |\n")
	for _, f := range c.Flags {
		describeFlag(b, f)
	}
}

var placeholder = regexp.MustCompile("`([^`]+)`")

func describeFlag(b *strings.Builder, f cli.Flag) {
	doc := f.(cli.DocGenerationFlag) // TestEachFlagHasItsEnvironmentVariable
	value := ""
	if m := placeholder.FindStringSubmatch(doc.GetUsage()); m != nil {
		value = " " + m[1]
	}
	var names []string
	for _, name := range f.Names() {
		if len(name) == 1 {
			names = append(names, "`-"+name+value+"`")
		} else {
			names = append(names, "`--"+name+value+"`")
		}
	}
	fallback := strings.Trim(doc.GetDefaultText(), `"`)
	if fallback == "" && doc.TakesValue() {
		fallback = "none"
	}
	fmt.Fprintf(b, "| %s | %s | %s | `%s` |\n", strings.Join(names, ", "), fallback, placeholder.ReplaceAllString(doc.GetUsage(), "$1"), doc.GetEnvVars()[0])
}
