package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
)

// completer answers what a shell asks when its user presses Tab. It reads the command tree, so that a new command or flag
// is completed at once: what stands for a value in help says what the value may be. What only the cluster knows is asked
// of the node that the command itself would ask.
type completer struct {
	app *cli.App
}

// proposal is one word that may stand where the cursor is.
type proposal struct {
	word string
	help string
}

// proposals are words, and what the shell is to do beside them.
type proposals struct {
	words []proposal
	files string // also complete names of files: "wasm", "any", or "dirs" for directories
	glued bool   // the word goes on: no blank after it
}

// values are those of flags that take one of a few.
var values = map[string][]string{
	"output":         {"table", "json"},
	"restart":        {"never", "always", "on-failure"},
	"on-partition":   {"keep", "stop"},
	"log-level":      {"debug", "info", "warn", "error"},
	"log-format":     {"text", "json"},
	"gossip-profile": {"lan", "local"},
	"status":         api.Statuses(),
	"sort":           api.Sorts(),
}

// propose completes the last of the words of a command line, of which the first is the program's name.
func (c *completer) propose(words []string) proposals {
	line := c.read(words[1 : len(words)-1])
	current := words[len(words)-1]
	name, value, joined := strings.Cut(current, "=")
	var p proposals
	switch {
	case line.ended:
		p = proposals{files: "any"} // for the guest
	case line.pending != nil:
		p = c.flagValue(line, line.pending, current)
	case joined && strings.HasPrefix(name, "-"):
		if f := line.flag(name); f != nil {
			p = c.flagValue(line, f, value)
		}
		for n := range p.words {
			p.words[n].word = name + "=" + p.words[n].word
		}
	case strings.HasPrefix(current, "-"):
		p = line.flags()
	case len(line.commands) > 0:
		p = line.subcommands()
	case line.command != nil:
		p = c.argument(line, current)
	}
	p.words = slices.DeleteFunc(p.words, func(w proposal) bool { return !strings.HasPrefix(w.word, current) })
	return p
}

// line is what was read of a command line.
type line struct {
	commands []*cli.Command // those that may come next
	command  *cli.Command   // nil before the first
	given    map[string]string
	args     []string
	pending  cli.Flag // its value comes next
	ended    bool     // by --
}

func (c *completer) read(words []string) *line {
	l := &line{commands: c.app.Commands, given: map[string]string{}}
	for _, word := range words {
		name, value, joined := strings.Cut(word, "=")
		switch {
		case l.pending != nil:
			l.given[l.pending.Names()[0]] = word
			l.pending = nil
		case l.ended:
			l.args = append(l.args, word)
		case word == "--":
			l.ended = true
		case len(word) > 1 && word[0] == '-':
			f := l.flag(name)
			switch {
			case f == nil:
			case joined:
				l.given[f.Names()[0]] = value
			case takesValue(f):
				l.pending = f
			}
		case len(l.commands) > 0:
			n := slices.IndexFunc(l.commands, func(c *cli.Command) bool { return c.HasName(word) })
			if n < 0 {
				return &line{} // nothing can be said of what nobody knows
			}
			l.command, l.commands = l.commands[n], l.commands[n].Subcommands
			if l.command.Name == "help" {
				l.commands = c.app.Commands
			}
		default:
			l.args = append(l.args, word)
		}
	}
	return l
}

func (l *line) flag(word string) cli.Flag {
	name := strings.TrimLeft(word, "-")
	if l.command == nil {
		return nil
	}
	for _, f := range l.command.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	doc, ok := f.(cli.DocGenerationFlag)
	return ok && doc.TakesValue()
}

func (l *line) flags() proposals {
	words := []proposal{{"--help", "show help"}}
	if l.command != nil {
		for _, f := range l.command.Flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if _, again := l.given[f.Names()[0]]; !ok || again && !repeatable(f) {
				continue
			}
			words = append(words, proposal{"--" + f.Names()[0], strings.ReplaceAll(doc.GetUsage(), "`", "")})
		}
	}
	return proposals{words: words}
}

func repeatable(f cli.Flag) bool {
	_, many := f.(*cli.StringSliceFlag)
	return many
}

func (l *line) subcommands() proposals {
	var words []proposal
	for _, c := range l.commands {
		if !c.Hidden {
			words = append(words, proposal{c.Name, c.Usage})
		}
	}
	return proposals{words: words}
}

// flagValue proposes values of a flag by its name, or by the word that stands for them in its help.
func (c *completer) flagValue(l *line, f cli.Flag, current string) proposals {
	name := f.Names()[0]
	if fixed := values[name]; fixed != nil {
		return list(fixed...)
	}
	ask := l.asker()
	switch word := placeholderOf(f); {
	case word == "FILE":
		return proposals{files: "any"}
	case word == "DIR":
		return proposals{files: "dirs"}
	case word == "NODE":
		return ask.nodes()
	case word == "REF":
		return ask.instances(current, true)
	case word == "NAME":
		return ask.names()
	case strings.HasPrefix(word, "ID="):
		return ask.grants(current)
	case name == "addr":
		return ask.addresses()
	case name == "constraint" || name == "on":
		return ask.labels()
	case name == "backend":
		return proposals{words: list("raft:", "memory:", "redis://", "etcd://", "nats://", "embedded:", "direct:").words, glued: true}
	}
	return proposals{}
}

// argument proposes an argument by the word that stands for it in the command's synopsis.
func (c *completer) argument(l *line, current string) proposals {
	synopsis := strings.Fields(l.command.ArgsUsage)
	if len(synopsis) == 0 {
		return proposals{}
	}
	at := len(l.args)
	if last := len(synopsis) - 1; at > last {
		if !strings.HasSuffix(synopsis[last], "...") {
			return proposals{}
		}
		at = last
	}
	ask := l.asker()
	switch word := strings.TrimSuffix(synopsis[at], "..."); {
	case word == "REF":
		return ask.instances(current, slices.Contains([]string{"logs", "inspect"}, l.command.Name))
	case word == "NAME" || word == "NODE":
		return ask.nodes()
	case word == "HASH":
		return ask.modules()
	case word == "MODULE" || word == "[MODULE]":
		// Whoever types no part of it wants a file: there is nothing in a hash to choose by.
		if current != "" && (strings.HasPrefix(hashPrefix, current) || strings.HasPrefix(current, hashPrefix)) {
			return ask.modules()
		}
		return proposals{files: "wasm"}
	case word == "FILE":
		return proposals{files: "any"}
	case word == "[COMMAND]":
		return (&line{commands: c.app.Commands}).subcommands()
	case word == "TYPE":
		return list("kv", "http", "messaging")
	case word == "[LEVEL]":
		return list(values["log-level"]...)
	case word == "ID":
		return ask.providers()
	case strings.HasPrefix(word, "ID"):
		return ask.grants(current)
	}
	return proposals{}
}

func list(words ...string) proposals {
	var p proposals
	for _, word := range words {
		p.words = append(p.words, proposal{word: word})
	}
	return p
}

// placeholderOf returns the word that stands for a flag's value in its help.
func placeholderOf(f cli.Flag) string {
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	_, rest, _ := strings.Cut(doc.GetUsage(), "`")
	word, _, _ := strings.Cut(rest, "`")
	return word
}

// print writes proposals for the scripts in completion/: a word and its help a line, and lines that begin with a colon for
// what else to do.
func (p proposals) print(w io.Writer) error {
	var b strings.Builder
	for _, word := range p.words {
		fmt.Fprintf(&b, "%s\t%s\n", clean(word.word), clean(word.help))
	}
	if p.files != "" {
		fmt.Fprintf(&b, ":files %s\n", p.files)
	}
	if p.glued {
		b.WriteString(":glued\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// asker returns what asks the node that the line would ask. A command that asks none has no --addr.
func (l *line) asker() asker {
	addr, given := l.given["addr"]
	if !given {
		addr = os.Getenv(envName("addr"))
	}
	if l.command == nil || !slices.ContainsFunc(l.command.Flags, func(f cli.Flag) bool { return f.Names()[0] == "addr" }) {
		return asker{}
	}
	if addr == "" {
		addr = defaultAddr
	}
	return asker{addr: addr}
}
