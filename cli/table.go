package cli

import (
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// column is one column of a table, and what becomes of it where a terminal is too narrow. A pipe gets all of it.
type column struct {
	heading string
	// least is how narrow its cells may become before columns are left out. 0 for what is copied, such as an id: cut off,
	// it is of no use, or stands for something else.
	least int
	// spare says which columns are left out: those with the highest number first. 0 stays in any case.
	spare int
	// states has its words in their colors.
	states bool
}

// gap is what separates columns.
const gap = "  "

// mark ends the heading of a table with columns left out.
const (
	mark      = gap + "…"
	markWidth = len(gap) + 1
)

// table prints rows under a heading, in columns.
func table(w io.Writer, columns []column, rows [][]string) error {
	out := screenOf(w)
	heading := make([]string, 0, len(columns))
	for _, c := range columns {
		heading = append(heading, c.heading)
	}
	cells := [][]string{heading}
	for _, row := range rows {
		cells = append(cells, cleaned(row))
	}
	widths := make([]int, len(columns))
	for _, row := range cells {
		for n, cell := range row {
			widths[n] = max(widths[n], ansi.StringWidth(cell))
		}
	}
	whole := true
	if out.width > 0 {
		widths, whole = fit(columns, widths, out.width)
	}
	var b strings.Builder
	for n, row := range cells {
		line := out.line(columns, widths, row, n > 0)
		if n == 0 && !whole {
			line += mark
		}
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// cleaned returns a row without what could steer the terminal, and with a dash where there is nothing.
func cleaned(row []string) []string {
	row = slices.Clone(row)
	for n, cell := range row {
		if row[n] = clean(cell); row[n] == "" {
			row[n] = "-"
		}
	}
	return row
}

// line returns a row as wide as it is to be shown. A column without width is left out.
func (s screen) line(columns []column, widths []int, row []string, painted bool) string {
	var b strings.Builder
	blanks := 0 // none at the end of a line
	for n, cell := range row {
		if widths[n] == 0 {
			continue
		}
		b.WriteString(strings.Repeat(" ", blanks))
		cell = shorten(cell, widths[n])
		blanks = widths[n] - ansi.StringWidth(cell) + len(gap)
		if painted && columns[n].states {
			cell = s.paint(stateColors[cell], cell)
		}
		b.WriteString(cell)
	}
	return b.String()
}

// fit returns how wide columns are where there is room for so much, and whether all are there. Those that may become
// narrower do; if that is not enough, those that can be spared come in by their order as far as there is room, and the others
// are left out, with the width 0. Where not even those that stay have room, lines are longer than it.
func fit(columns []column, widths []int, room int) (fitting []int, whole bool) {
	if fitting = squeeze(columns, widths, room); total(fitting) <= room {
		return fitting, true
	}
	order := make([]int, len(columns))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int { return columns[a].spare - columns[b].spare })
	shown := make([]int, len(columns))
	whole = true
	for _, n := range order {
		shown[n] = widths[n]
		if columns[n].spare > 0 && total(squeeze(columns, shown, room-markWidth)) > room-markWidth {
			shown[n], whole = 0, false
		}
	}
	if !whole {
		room -= markWidth
	}
	return squeeze(columns, shown, room), whole
}

// squeeze takes from the widest columns that may become narrower what there is no room for.
func squeeze(columns []column, widths []int, room int) []int {
	widths = slices.Clone(widths)
	for over := total(widths) - room; over > 0; over-- {
		widest := -1
		for n, c := range columns {
			if c.least > 0 && widths[n] > max(c.least, len(c.heading)) && (widest < 0 || widths[n] >= widths[widest]) {
				widest = n
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// total returns how wide a line is.
func total(widths []int) int {
	sum, shown := 0, 0
	for _, width := range widths {
		if width > 0 {
			sum, shown = sum+width, shown+1
		}
	}
	return sum + max(shown-1, 0)*len(gap)
}

// field is one line of what is told of a single thing.
type field struct{ name, value string }

// fields prints what is told of a single thing, leaving out what is not set.
func fields(w io.Writer, all []field) error {
	out := screenOf(w)
	all = slices.DeleteFunc(slices.Clone(all), func(f field) bool { return f.value == "" })
	width := 0
	for _, f := range all {
		width = max(width, ansi.StringWidth(clean(f.name)))
	}
	var b strings.Builder
	for _, f := range all {
		value := clean(f.value)
		if f.name == "status" || f.name == "state" {
			value = out.paint(stateColors[value], value)
		}
		b.WriteString(pad(clean(f.name)+":", width+1) + gap + value + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
