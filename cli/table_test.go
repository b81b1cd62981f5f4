package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
	"pgregory.net/rapid"
)

func TestTablesFitTheTerminal(t *testing.T) {
	for name, show := range sampleTables(sampleTime) {
		if name == "event" || name == "instance" || name == "crashed" || name == "status" { // those wrap
			continue
		}
		for _, width := range []int{200, 80, 60} {
			t.Run(fmt.Sprintf("%s/%d", name, width), func(t *testing.T) {
				var out bytes.Buffer
				if err := show(screen{Writer: &out, width: width}); err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(out.String()) {
					if got := ansi.StringWidth(strings.TrimSuffix(line, "\n")); got > width {
						t.Errorf("%d columns: %s", got, line)
					}
				}
				checkGolden(t, filepath.Join("testdata", fmt.Sprintf("%s-%d.golden", name, width)), out.Bytes())
			})
		}
	}
}

func TestColorsAreForStatesAlone(t *testing.T) {
	for _, name := range []string{"instances", "crashed", "event"} {
		var bare, painted bytes.Buffer
		if err := sampleTables(sampleTime)[name](&bare); err != nil {
			t.Fatal(err)
		}
		if err := sampleTables(sampleTime)[name](screen{Writer: &painted, color: true}); err != nil {
			t.Fatal(err)
		}
		if got := ansi.Strip(painted.String()); got != bare.String() {
			t.Errorf("%s: without its colors it is\n%s\nand not\n%s", name, got, bare.String())
		}
		if !strings.Contains(painted.String(), red) {
			t.Errorf("%s shows what crashed in no color:\n%s", name, painted.String())
		}
	}
}

func TestColorsAreWhereTheyAreWanted(t *testing.T) {
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 24, Cols: 72}); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	for _, c := range []struct {
		to    *os.File
		env   string
		color bool
	}{
		{theirs, "", true},
		{theirs, "NO_COLOR=1", false},
		{theirs, "NO_COLOR=1 CLICOLOR_FORCE=1", false},
		{theirs, "NO_COLOR=", true},
		{theirs, "TERM=dumb", false},
		{pipe, "", false},
		{pipe, "CLICOLOR_FORCE=1", true},
		{pipe, "CLICOLOR_FORCE=0", false},
	} {
		t.Run(fmt.Sprintf("terminal=%v %s", c.to == theirs, c.env), func(t *testing.T) {
			for _, name := range []string{"NO_COLOR", "CLICOLOR_FORCE"} {
				t.Setenv(name, "")
			}
			t.Setenv("TERM", "xterm")
			for _, word := range strings.Fields(c.env) {
				name, value, _ := strings.Cut(word, "=")
				t.Setenv(name, value)
			}
			got := screenOf(c.to)
			if got.color != c.color {
				t.Errorf("colors: %v", got.color)
			}
			if want := map[bool]int{true: 72, false: 0}[c.to == theirs]; got.width != want {
				t.Errorf("%d columns, want %d", got.width, want)
			}
		})
	}
}

// However narrow: what is copied is never cut, what must stay stays, and nothing gives way where there is room.
func TestColumnsGiveWayInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) column {
			return column{
				heading: strings.Repeat("H", rapid.IntRange(1, 8).Draw(t, "heading")),
				least:   rapid.IntRange(0, 12).Draw(t, "least"), spare: rapid.IntRange(0, 3).Draw(t, "spare"),
			}
		}), 1, 6).Draw(t, "columns")
		widths := make([]int, len(columns))
		for n, c := range columns {
			widths[n] = rapid.IntRange(len(c.heading), 40).Draw(t, "width")
		}
		room := rapid.IntRange(1, 120).Draw(t, "room")
		fitting, whole := fit(columns, widths, room)
		for n, c := range columns {
			switch width := fitting[n]; {
			case width == 0 && c.spare == 0:
				t.Fatalf("column %d is left out, and must stay", n)
			case width > widths[n], width > 0 && width < widths[n] && (c.least == 0 || width < min(widths[n], c.least)):
				t.Fatalf("column %d is %d wide", n, width)
			}
		}
		if whole != !slices.Contains(fitting, 0) {
			t.Fatalf("whole: %v, with %v", whole, fitting)
		}
		if spared := slices.ContainsFunc(columns, func(c column) bool { return c.spare > 0 }); total(fitting) > room && spared && whole {
			t.Fatalf("%v is too much for %d, and nothing is left out", fitting, room)
		}
		if total(widths) <= room && !slices.Equal(fitting, widths) {
			t.Fatalf("there is room for %v, and %v is shown", widths, fitting)
		}
	})
}

func TestNothingSteersTheTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\tc": "a b c", "\x1b[31m": "�[31m", "\r\x07\u0085": "���", "abc\u202edef\u2066": "abc�def�", "a\u2028b": "a b",
		"宽 👩‍👩‍👧 é": "宽 👩‍👩‍👧 é", "\xff": "�",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
