package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"
)

// configLimit bounds a configuration file: what is longer is some other file.
const configLimit = 1 << 20

// setting is what a configuration file says of one flag.
type setting struct {
	values []string // as they would stand on the command line; a list has any number
	place  string   // FILE:LINE:COLUMN
}

// configReader reads a configuration file. Its keys are the names of flags, and a flag's type is that of its value, so that
// the flags are all there is to know.
type configReader struct {
	file     string
	flags    []cli.Flag
	settings map[string]setting
	wrong    []error
}

// readConfigFile reads the file of that name.
func readConfigFile(name string, flags []cli.Flag) (map[string]setting, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, configLimit+1))
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	if len(raw) > configLimit {
		return nil, fmt.Errorf("--config: %s has more than %s: is it a configuration?", name, formatSize(configLimit))
	}
	return decodeConfig(name, raw, flags)
}

// decodeConfig reads the content of a configuration file. The error has all that is wrong, each with its place.
func decodeConfig(name string, raw []byte, flags []cli.Flag) (map[string]setting, error) {
	r := &configReader{file: name, flags: flags, settings: map[string]setting{}}
	loader, err := yaml.NewLoader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var document, more yaml.Node
	switch err := loader.Load(&document); {
	case errors.Is(err, io.EOF): // nothing but comments
		return r.settings, nil
	case err != nil:
		return nil, r.syntax(err)
	}
	if err := loader.Load(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, r.syntax(err)
		}
		return nil, fmt.Errorf("%s: a second document begins: want one", r.place(&more))
	}
	r.root(document.Content[0])
	return r.settings, errors.Join(r.wrong...)
}

// syntax words an error of the library's: no YAML at all.
func (r *configReader) syntax(err error) error {
	at := r.file
	var one *yaml.LoadError
	if !errors.As(err, &one) {
		return fmt.Errorf("%s: this is no YAML: %w", at, err)
	}
	if one.Mark.Line > 0 {
		at += fmt.Sprintf(":%d:%d", one.Mark.Line, max(one.Mark.Column, 1))
	}
	message := one.Message
	if one.ContextMsg != "" {
		message += ", " + one.ContextMsg
	}
	return fmt.Errorf("%s: this is no YAML: %s", at, message)
}

func (r *configReader) place(n *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", r.file, n.Line, n.Column)
}

func (r *configReader) refuse(n *yaml.Node, format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Errorf("%s: "+format, append([]any{r.place(n)}, args...)...))
}

func (r *configReader) root(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.refuse(n, "want lines like `voters: 3`, and this is %s", describeNode(n))
		return
	}
	r.pairs(n, func(key, value *yaml.Node) {
		f := r.flag(key)
		if f == nil {
			return
		}
		s := setting{place: r.place(value)}
		switch {
		case value.Kind == yaml.AliasNode:
			r.refuse(value, "%s: aliases are not read here: repeat the value", key.Value)
			return
		case value.ShortTag() == "!!null":
			r.refuse(value, "%s has no value: give one, or take the line out", key.Value)
			return
		}
		if list, ok := f.(*cli.StringSliceFlag); ok {
			s.values = r.list(list, value)
		} else if word, ok := r.scalar(f, value); ok {
			s.values = []string{word}
		}
		r.settings[key.Value] = s
	})
}

// pairs goes through a mapping, and refuses keys that are no text or come twice.
func (r *configReader) pairs(n *yaml.Node, each func(key, value *yaml.Node)) {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch before := first[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			r.refuse(key, "a key is text, and this is %s", describeNode(key))
		case before != nil:
			r.refuse(key, "%s is here twice, first in line %d: take one out", key.Value, before.Line)
		default:
			first[key.Value] = key
			each(key, value)
		}
	}
}

// flag returns the flag of a key. What only the command line has is none.
func (r *configReader) flag(key *yaml.Node) cli.Flag {
	best, least := "", 0
	for _, f := range r.flags {
		name := f.Names()[0]
		if name == key.Value {
			return f
		}
		if d := distance(name, strings.ReplaceAll(key.Value, "_", "-")); best == "" || d < least {
			best, least = name, d
		}
	}
	switch {
	case slices.Contains(notInFile, key.Value):
		r.refuse(key, "%s is for the command line only", key.Value)
	case least <= 1+len(key.Value)/4: // farther away it would only mislead
		r.refuse(key, "there is no setting %q; did you mean %q?", key.Value, best)
	default:
		r.refuse(key, "there is no setting %q; keys are the names of the flags of `wasmatrix agent`", key.Value)
	}
	return nil
}

// list reads a list of words or, for a flag that takes K=V, a map.
func (r *configReader) list(f *cli.StringSliceFlag, n *yaml.Node) []string {
	name := f.Names()[0]
	var words []string
	item := func(what string, n *yaml.Node) (string, bool) {
		switch {
		case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
			r.refuse(n, "%s: want text, and this is %s%s", what, describeNode(n), quoteHint(n))
		case strings.Contains(n.Value, ","):
			r.refuse(n, "%s: %s has a comma, which would split it on the command line: one at a time", what, describeNode(n))
		case strings.TrimSpace(n.Value) == "":
			r.refuse(n, "%s: this is empty", what)
		default:
			return n.Value, true
		}
		return "", false
	}
	if valueName(f) == "K=V" {
		if n.Kind != yaml.MappingNode {
			r.refuse(n, "%s: want a map, as in `%s: {zone: a, disk: ssd}`, and this is %s", name, name, describeNode(n))
			return nil
		}
		r.pairs(n, func(key, value *yaml.Node) {
			_, good := item("a key of "+name, key)
			if strings.Contains(key.Value, "=") {
				r.refuse(key, "a key of %s has no equals sign", name)
				good = false
			}
			if word, ok := item(name+" "+key.Value, value); ok && good {
				words = append(words, key.Value+"="+word)
			}
		})
		return words
	}
	if n.Kind != yaml.SequenceNode {
		r.refuse(n, "%s: want a list, as in `%s: [a, b]`, and this is %s", name, name, describeNode(n))
		return nil
	}
	for _, one := range n.Content {
		if word, ok := item(name, one); ok {
			words = append(words, word)
		}
	}
	return words
}

// scalar reads a value as the flag's type wants it.
func (r *configReader) scalar(f cli.Flag, n *yaml.Node) (string, bool) {
	name, tag := f.Names()[0], n.ShortTag()
	want := func(ok bool, what, example string) bool {
		if !ok {
			r.refuse(n, "%s: want %s, as in `%s: %s`, and this is %s", name, what, name, example, describeNode(n))
		}
		return ok
	}
	if n.Kind != yaml.ScalarNode {
		tag = ""
	}
	switch f := f.(type) {
	case *cli.IntFlag:
		number, err := strconv.ParseInt(n.Value, 0, 32)
		return strconv.FormatInt(number, 10), want(tag == "!!int" && err == nil, "a whole number", "3")
	case *cli.Float64Flag:
		_, err := strconv.ParseFloat(n.Value, 64)
		return n.Value, want((tag == "!!int" || tag == "!!float") && err == nil, "a number", "1.5")
	case *cli.BoolFlag:
		return n.Value, want(tag == "!!bool", "true or false", "true")
	case *cli.DurationFlag:
		_, err := time.ParseDuration(n.Value)
		return n.Value, want(tag == "!!str" && err == nil, "a time with its unit", "30s")
	case *cli.StringFlag:
		if valueName(f) == "SIZE" {
			_, err := parseSize(n.Value)
			return n.Value, want((tag == "!!str" || tag == "!!int") && err == nil, "a size", "8GiB")
		}
		if tag != "!!str" {
			r.refuse(n, "%s: want text, and this is %s%s", name, describeNode(n), quoteHint(n))
		}
		return n.Value, tag == "!!str"
	default:
		r.refuse(n, "%s can't be set in a file", name) // a flag of a type that no flag of the agent's has yet
		return "", false
	}
}

// describeNode says what a value is, for somebody who thought that it was something else.
func describeNode(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.ShortTag() == "!!null":
		return "nothing"
	case strings.Contains(n.Value, "://"): // which may hold a password
		return "an address"
	case n.ShortTag() == "!!str":
		return fmt.Sprintf("the text %q", shorten(n.Value, 40))
	default:
		return "a YAML " + strings.TrimLeft(n.ShortTag(), "!") + ", " + shorten(n.Value, 40)
	}
}

func quoteHint(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.Value == "" || strings.Contains(n.Value, "://") {
		return ""
	}
	return fmt.Sprintf(": put it in quotes, %q", shorten(n.Value, 40))
}

// valueName returns what a flag's help calls its value.
func valueName(f cli.Flag) string {
	if doc, ok := f.(cli.DocGenerationFlag); ok {
		if _, rest, found := strings.Cut(doc.GetUsage(), "`"); found {
			name, _, _ := strings.Cut(rest, "`")
			return name
		}
	}
	return ""
}

// distance returns how many letters are to be added, removed or changed to make one word of another (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
