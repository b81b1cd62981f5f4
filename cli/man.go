package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func manCommand(build Build) *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print a manual page, or write them all",
		ArgsUsage: "[COMMAND]",
		Description: "For those who package wasmatrix, and for hosts without its package: `wasmatrix man run | man -l -`. Pages are dated by\n" +
			"SOURCE_DATE_EPOCH where it is set, else by the commit that was built.\n\n" +
			"    wasmatrix man --dir /usr/local/share/man/man1",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "write wasmatrix.1 and a page for each command into this `DIR`, which is made", EnvVars: env("dir")},
		},
		Action: func(c *cli.Context) error {
			pages := manual{app: c.App, version: build.Version, date: manDate()}
			switch args := c.Args().Slice(); {
			case len(args) > 1:
				return usagef(c, "%q is one argument too many; one page has all that is below a command", args[1])
			case c.String("dir") != "" && len(args) > 0:
				return usagef(c, "--dir has all pages written, and %q asks for one", args[0])
			case c.String("dir") != "":
				return pages.write(c.String("dir"))
			case len(args) == 0:
				_, err := io.WriteString(c.App.Writer, pages.overview())
				return err
			default:
				command := c.App.Command(args[0])
				if command == nil || !documented(command) {
					return usagef(c, "there is no command %q", args[0])
				}
				_, err := io.WriteString(c.App.Writer, pages.page(command))
				return err
			}
		},
	}
}

// manual makes manual pages of the command tree: one for the program, and one for each of its commands with those below it.
// They use the man macros only, which every man reads.
type manual struct {
	app     *cli.App
	version string
	date    string // may be empty
}

// documented says whether a command is for people.
func documented(c *cli.Command) bool { return !c.Hidden && c.Name != "help" }

// manDate returns the date of the pages: the same source makes the same pages.
func manDate() string {
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
	}
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			date, _, _ := strings.Cut(s.Value, "T")
			return date
		}
	}
	return ""
}

func (m manual) write(dir string) error {
	err := os.MkdirAll(dir, 0o755) //nolint:gosec // whoever uses the host reads them
	add := func(name, page string) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".1"), []byte(page), 0o644) //nolint:gosec // as above
		}
	}
	add(m.app.Name, m.overview())
	for _, c := range m.app.Commands {
		if documented(c) {
			add(m.app.Name+"-"+c.Name, m.page(c))
		}
	}
	if err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	return nil
}

func (m manual) head(name, usage string) string {
	return fmt.Sprintf(".TH %s 1 \"%s\" \"%s %s\" \"User Commands\"\n.SH NAME\n%s \\- %s\n",
		strings.ToUpper(escape(name)), m.date, m.app.Name, m.version, escape(name), escape(usage))
}

const commonManual = `.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
The operation failed.
.TP
.B 2
The command line was wrong.
`

// overview is the page of the program itself.
func (m manual) overview() string {
	var b strings.Builder
	b.WriteString(m.head(m.app.Name, m.app.Usage))
	b.WriteString(".SH SYNOPSIS\n\\fB" + m.app.Name + "\\fR \\fICOMMAND\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n.SH DESCRIPTION\n" + prose(m.app.Description) + ".SH COMMANDS\n")
	var seeAlso []string
	for _, c := range m.app.Commands {
		if documented(c) {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s.\n", escape(c.Name), escape(sentence(c.Usage)))
			seeAlso = append(seeAlso, "\\fB"+escape(m.app.Name+"-"+c.Name)+"\\fR(1)")
		}
	}
	b.WriteString(".SH ENVIRONMENT\nEach flag can be set by the variable that its page names with it; \\fBWASMATRIX_ADDR\\fR says which node to ask.\n" +
		"\\fBNO_COLOR\\fR has states and errors shown without colors, \\fBCLICOLOR_FORCE\\fR with them also where no terminal is.\n" +
		commonManual + ".SH SEE ALSO\n" + strings.Join(seeAlso, ",\n") + "\n")
	return b.String()
}

// page is the page of one command, and of those below it.
func (m manual) page(c *cli.Command) string {
	var b strings.Builder
	b.WriteString(m.head(m.app.Name+"-"+c.Name, c.Usage))
	b.WriteString(".SH SYNOPSIS\n")
	leaves := leavesOf(m.app.Name, c)
	for n, l := range leaves {
		if n > 0 {
			b.WriteString(".br\n")
		}
		b.WriteString(l.synopsis())
	}
	b.WriteString(".SH DESCRIPTION\n")
	if len(leaves) == 1 {
		b.WriteString(leaves[0].body())
	} else {
		b.WriteString(prose(c.Description))
		for _, l := range leaves {
			b.WriteString(".SS " + escape(l.name) + "\n" + l.body())
		}
	}
	return b.String() + commonManual + ".SH SEE ALSO\n\\fB" + m.app.Name + "\\fR(1)\n"
}

// leaf is a command that can be run.
type leaf struct {
	*cli.Command

	name string // with all words that lead to it
}

func leavesOf(prefix string, c *cli.Command) (leaves []leaf) {
	name := prefix + " " + c.Name
	if len(c.Subcommands) == 0 {
		return []leaf{{c, name}}
	}
	for _, sub := range c.Subcommands {
		if documented(sub) {
			leaves = append(leaves, leavesOf(name, sub)...)
		}
	}
	return leaves
}

func (l leaf) synopsis() string {
	line := "\\fB" + escape(l.name) + "\\fR"
	if len(l.Flags) > 0 {
		line += " [\\fIflags\\fR]"
	}
	if args := strings.TrimSpace(l.ArgsUsage); args != "" {
		line += " \\fI" + escape(args) + "\\fR"
	}
	return line + "\n"
}

// body says what a command does, and what its flags do.
func (l leaf) body() string {
	var b strings.Builder
	b.WriteString(escape(sentence(l.Usage)) + ".\n")
	if l.Description != "" {
		b.WriteString(".PP\n" + prose(l.Description))
	}
	for _, f := range l.Flags {
		if doc, ok := f.(cli.DocGenerationFlag); ok && documentedFlag(f) {
			b.WriteString(flagEntry(f, doc))
		}
	}
	return b.String()
}

// documentedFlag leaves out what the library adds to each command.
func documentedFlag(f cli.Flag) bool { return !slices.Contains(f.Names(), "help") }

func flagEntry(f cli.Flag, doc cli.DocGenerationFlag) string {
	var names []string
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		word := "\\fB" + escape(dashes+name) + "\\fR"
		if value := placeholderOf(f); value != "" && doc.TakesValue() {
			word += " \\fI" + escape(value) + "\\fR"
		}
		names = append(names, word)
	}
	entry := ".TP\n" + strings.Join(names, ", ") + "\n" + quotedWord.ReplaceAllString(escape(sentence(doc.GetUsage())), `\fI$1\fR`) + ".\n"
	if fallback := strings.Trim(doc.GetDefaultText(), `"`); fallback != "" && doc.TakesValue() {
		entry += "Default: " + escape(fallback) + ".\n"
	}
	if vars := doc.GetEnvVars(); len(vars) > 0 {
		entry += "Environment: \\fB" + escape(vars[0]) + "\\fR.\n"
	}
	return entry
}

// sentence begins a text with a capital letter. Its full stop it gets where it is used.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// prose sets text as the help has it: paragraphs, and lines that are indented by four blanks as they are.
func prose(text string) string {
	var paragraphs []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph == "" {
			continue
		}
		if strings.HasPrefix(paragraph, "    ") {
			paragraphs = append(paragraphs, ".RS 4\n.nf\n"+escape(strings.TrimPrefix(strings.ReplaceAll(paragraph, "\n    ", "\n"), "    "))+"\n.fi\n.RE\n")
		} else {
			paragraphs = append(paragraphs, inline(paragraph)+"\n")
		}
	}
	return strings.Join(paragraphs, ".PP\n")
}

var quotedWord = regexp.MustCompile("`([^`]+)`")

// inline sets what is in backticks in bold.
func inline(text string) string { return quotedWord.ReplaceAllString(escape(text), `\fB$1\fR`) }

// escape keeps text from being read as roff. A line that begins with a dot would be a macro, a plain dash is a hyphen that
// cannot be copied.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for n, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[n] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
