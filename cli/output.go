package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/wasmatrix/wasmatrix/api"
)

// table prints rows under a heading, in columns.
func table(w io.Writer, heading []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		cells := slices.Clone(row)
		for i, cell := range cells {
			if cells[i] = clean(cell); cells[i] == "" {
				cells[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(tw, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// field is one line of what is told of a single thing.
type field struct{ name, value string }

// fields prints what is told of a single thing, leaving out what is not set.
func fields(w io.Writer, all []field) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range all {
		if f.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(tw, "%s:\t%s\n", f.name, clean(f.value)); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// clean keeps text from elsewhere, such as a guest's last words, from steering the terminal or
// breaking a table's lines.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// shorten cuts text that is too long for its column.
func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// age writes how long ago something was, in two units at most.
func age(t *time.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	d := max(now.Sub(*t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// moment writes a time for people, in their zone.
func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000 -0700")
}

// pairs writes K=V pairs in order.
func pairs(m map[string]string) string {
	all := make([]string, 0, len(m))
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// printInstances prints what run, ps and stop answer with.
func printInstances(w io.Writer, json bool, instances []api.Instance) error {
	if json {
		return printJSON(w, instances)
	}
	return instanceTable(w, instances, time.Now())
}

func instanceTable(w io.Writer, instances []api.Instance, now time.Time) error {
	rows := make([][]string, 0, len(instances))
	ids := make([]string, 0, len(instances))
	for _, i := range instances {
		ids = append(ids, i.InstanceID)
	}
	width := prefixWidth(ids)
	for _, i := range instances {
		rows = append(rows, []string{
			i.InstanceID[:min(width, len(i.InstanceID))], i.Name, i.NodeName, i.Status, fmt.Sprint(i.Restarts), age(i.CreatedAt, now), shorten(lastWord(i), 60),
		})
	}
	return table(w, []string{"ID", "NAME", "NODE", "STATUS", "RESTARTS", "AGE", "EXIT/ERROR"}, rows)
}

// shortestPrefix is the least of an id that is shown: all of the time in a UUIDv7, to its millisecond.
const shortestPrefix = len("01930000-0000")

// prefixWidth returns how much of ids is enough to tell them apart. Ids made together share their time,
// so that it may be more than the shortest.
func prefixWidth(ids []string) int {
	width := shortestPrefix
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for n := 1; n < len(ids); n++ {
		a, b := ids[n-1], ids[n]
		if a == b {
			continue
		}
		same := 0
		for same < len(a) && a[same] == b[same] { // b is longer, or differs before its end
			same++
		}
		width = max(width, same+1)
	}
	if slices.ContainsFunc(ids, func(id string) bool { return len(id) > width && id[width-1] == '-' }) {
		width++ // a dash at the end looks like a mistake
	}
	return width
}

// lastWord says how an instance last ended.
func lastWord(i api.Instance) string {
	switch {
	case i.LastError != "":
		return i.LastError
	case i.ExitCode != nil:
		return fmt.Sprintf("exit code %d", *i.ExitCode)
	default:
		return ""
	}
}

func instanceFields(w io.Writer, i api.Instance) error {
	exitCode := ""
	if i.ExitCode != nil {
		exitCode = fmt.Sprint(*i.ExitCode)
	}
	return fields(w, []field{
		{"id", i.InstanceID},
		{"name", i.Name},
		{"status", i.Status},
		{"node", i.NodeName + " (" + i.NodeID + ")"},
		{"module", i.ModuleHash},
		{"arguments", quoted(i.Args)},
		{"memory limit", formatSize(i.MemoryLimitBytes)},
		{"constraints", pairs(i.Constraints)},
		{"capabilities", grantWords(i.Capabilities)},
		{"on partition", i.OnPartition},
		{"restart policy", policy(i.RestartPolicy)},
		{"restarts", fmt.Sprint(i.Restarts)},
		{"generation", fmt.Sprint(i.Generation)},
		{"durability", i.Durability},
		{"created", moment(i.CreatedAt)},
		{"started", moment(i.StartedAt)},
		{"finished", moment(i.FinishedAt)},
		{"next restart", moment(i.RestartAt)},
		{"exit code", exitCode},
		{"last error", i.LastError},
	})
}

func policy(p api.RestartPolicy) string {
	words := strings.ReplaceAll(p.PolicyType, "_", "-")
	if p.PolicyType == "never" {
		return words
	}
	words += fmt.Sprintf(", first after %s", time.Duration(p.BackoffSeconds*float64(time.Second)))
	if p.MaxRetries > 0 {
		words += fmt.Sprintf(", at most %d in a row", p.MaxRetries)
	}
	return words
}

func quoted(args []string) string {
	words := make([]string, 0, len(args))
	for _, arg := range args {
		words = append(words, fmt.Sprintf("%q", arg))
	}
	return strings.Join(words, " ")
}
