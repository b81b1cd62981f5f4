package pages

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// step is one command of a page.
type step struct {
	line    int
	host    string // empty: the host of the step before
	command string
	says    []string // lines, of which "…" stands for anything
}

var prompt = regexp.MustCompile(`^([a-z0-9-]*)\$ (.*)$`)

// read returns the steps of the console blocks of a page.
func read(path string) ([]step, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var steps []step
	var at *step // in whose output a line is
	console := false
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch m := prompt.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "```"):
			console, at = line == "```console", nil
		case !console:
		case at != nil && at.goesOn():
			at.command += "\n" + line
		case m != nil:
			steps = append(steps, step{line: n, host: m[1], command: m[2]})
			at = &steps[len(steps)-1]
		case at == nil:
			return nil, fmt.Errorf("line %d: nobody was asked to say %q", n, line)
		case strings.TrimSpace(line) != "":
			at.says = append(at.says, line)
		}
	}
	return steps, lines.Err()
}

// goesOn says whether a command takes the next line, too.
func (s *step) goesOn() bool {
	first, rest, _ := strings.Cut(s.command, "\n")
	return strings.HasSuffix(s.command, `\`) || strings.HasSuffix(first, "<<'END'") && !strings.HasSuffix("\n"+rest, "\nEND")
}

// missing returns the first of the lines that is not among what was said, after those before it; empty if none is.
func (s *step) missing(said string) string {
	for _, line := range s.says {
		for part := range strings.SplitSeq(line, "…") {
			for word := range strings.FieldsSeq(part) {
				_, after, there := strings.Cut(said, word)
				if !there {
					return line
				}
				said = after
			}
		}
	}
	return ""
}
