package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
)

// age writes how long ago something was, in two units at most.
func age(t *time.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	return lasted(now.Sub(*t))
}

// lasted writes how long something has lasted, in two units at most.
func lasted(d time.Duration) string {
	d = max(d, 0)
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
	ids = shortIDs(w, ids, shortestID)
	for n, i := range instances {
		cpu, memory := usesNow(i)
		rows = append(rows, []string{
			ids[n], i.Name, i.NodeName, i.Status, fmt.Sprint(i.Restarts), age(i.CreatedAt, now), cpu, memory, lastWord(i),
		})
	}
	return table(w, []column{
		{heading: "ID"}, {heading: "NAME", least: 16}, {heading: "NODE", least: 12, spare: 2}, {heading: "STATUS", states: true},
		{heading: "RESTARTS", spare: 5}, {heading: "AGE", spare: 6}, {heading: "CPU", spare: 3}, {heading: "MEMORY", spare: 4},
		{heading: "EXIT/ERROR", least: 16, spare: 1},
	}, rows)
}

// shortIDs returns as much of ids as tells them apart, for people; in a pipe they stay whole, since more may have come
// before a script uses them.
func shortIDs(w io.Writer, ids []string, shortest int) []string {
	if screenOf(w).width == 0 {
		return ids
	}
	width := prefixWidth(ids, shortest)
	short := make([]string, 0, len(ids))
	for _, id := range ids {
		short = append(short, id[:min(width, len(id))])
	}
	return short
}

// shortestID is the least of an id that is shown: all of the time in a UUIDv7, to its millisecond.
const shortestID = len("01930000-0000")

// prefixWidth returns how much of ids is enough to tell them apart. Ids made together share their time,
// so that it may be more than the shortest.
func prefixWidth(ids []string, shortest int) int {
	width := shortest
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
	return fields(w, slices.Concat([]field{
		{"id", i.InstanceID},
		{"name", i.Name},
		{"status", i.Status},
		{"node", i.NodeName + " (" + i.NodeID + ")"},
		{"module", i.ModuleHash},
		{"arguments", quoted(i.Args)},
		{"memory limit", formatSize(i.MemoryLimitBytes)},
	}, slices.Concat(limitFields(i), usageFields(i)), []field{
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
	}))
}

// usesNow says how much of a processor a guest uses, and what memory it has; nothing, where that is not known or none runs.
func usesNow(i api.Instance) (cpu, memory string) {
	if i.Status != "running" || i.Usage == (api.Usage{}) {
		return "", ""
	}
	return fmt.Sprintf("%.2f", i.Usage.CPUUsedCores), formatSize(i.Usage.MemoryBytes)
}

// usageFields say what an instance has used, if anything.
func usageFields(i api.Instance) []field {
	u := i.Usage
	if u == (api.Usage{}) {
		return nil
	}
	cpu, memory := fmt.Sprintf("%.3fs", u.CPUSeconds), formatSize(u.MemoryPeakBytes)+" at most"
	if i.Status == "running" {
		cpu += fmt.Sprintf(", now %.2f of a processor", u.CPUUsedCores)
		memory = formatSize(u.MemoryBytes) + ", " + memory
	}
	all := []field{{"memory used", memory}, {"cpu time", cpu}}
	if u.Fuel > 0 { // else it is not metered
		all = append(all, field{"fuel used", strconv.FormatUint(u.Fuel, 10)})
	}
	return all
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
