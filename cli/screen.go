package cli

import (
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// screen is where output for people goes, and what can be shown there.
type screen struct {
	io.Writer

	width int  // in columns; 0 for a pipe or a file, which takes lines of any length
	color bool // of states and errors
}

// screenOf returns what is known of where w leads to.
func screenOf(w io.Writer) screen {
	if s, ok := w.(screen); ok {
		return s
	}
	s := screen{Writer: w}
	f, ok := w.(*os.File)
	if terminal := ok && term.IsTerminal(f.Fd()); terminal {
		s.width, _, _ = term.GetSize(f.Fd()) // of a terminal that does not tell, nothing is cut
		s.color = os.Getenv("TERM") != "dumb"
	}
	// https://bixense.com/clicolors and https://no-color.org, whose word is the last.
	if forced := os.Getenv("CLICOLOR_FORCE"); forced != "" && forced != "0" {
		s.color = true
	}
	if os.Getenv("NO_COLOR") != "" {
		s.color = false
	}
	return s
}

// The colors of what is well, of what is on its way and of what went wrong.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

// stateColors has the states of instances, nodes and providers. What ended as it should is as plain as other text.
var stateColors = map[string]string{
	"running": green, "alive": green,
	"starting": yellow, "restarting": yellow, "draining": yellow, "suspect": yellow,
	"crashed": red, "lost": red, "dead": red, "failing": red,
}

// eventColors has the types of events that someone may look for.
var eventColors = map[string]string{
	"instance.crashed": red, "instance.lost": red, "node.lost": red, "capability.denied": red,
	"instance.restarted": yellow, "instance.relocated": yellow,
	"instance.started": green, "node.joined": green,
}

// paint puts text in a color, where there are colors.
func (s screen) paint(color, text string) string {
	if !s.color || color == "" {
		return text
	}
	return color + text + plain
}

// clean keeps text from elsewhere, such as a guest's last words, from steering the terminal, breaking a table's lines or
// turning the order of what is read.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\u2028' || r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// shorten cuts text that is too wide for its place.
func shorten(s string, width int) string { return ansi.Truncate(s, width, "…") }

// pad fills text up with blanks to a width.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-ansi.StringWidth(s), 0))
}
