package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	bold    = "\x1b[1m"
	reverse = "\x1b[7m"
)

// topRows says how many rows each part of the screen has, without its headings.
type topRows struct{ nodes, instances, events int }

// topFixed are the two lines of the cluster, the headings of nodes, instances and events, and the keys.
const topFixed = 2 + 1 + 2 + 1 + 1

// rows shares the screen out: instances have what nodes and events leave, and those have a quarter each at most.
func (m *topModel) rows() topRows {
	quarter := max((m.height-topFixed)/4, 1)
	nodes := min(max(len(m.members), 1), quarter)
	return topRows{nodes: nodes, events: quarter, instances: max(m.height-topFixed-nodes-quarter, 1)}
}

// View draws the screen.
func (m *topModel) View() tea.View {
	lines := m.clusterLines()
	switch {
	case m.help:
		lines = append(lines, topHelp()...)
	case m.detail != nil:
		lines = append(lines, m.detailLines(m.height-len(lines)-1)...)
	default:
		lines = append(lines, m.nodeLines()...)
		lines = append(lines, m.instanceLines()...)
		lines = append(lines, m.eventLines()...)
	}
	lines = lines[:min(len(lines), max(m.height-1, 0))]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, m.keys())
	for n, line := range lines {
		lines[n] = ansi.Truncate(line, m.width, "")
	}
	view := tea.NewView(strings.Join(lines, "\n"))
	view.AltScreen = true
	view.WindowTitle = "wasmatrix top " + m.addr
	return view
}

func (m *topModel) screen(to *bytes.Buffer) screen {
	return screen{Writer: to, width: m.width, color: m.color}
}

func (m *topModel) paint(color, text string) string { return m.screen(nil).paint(color, text) }

// title is a line that heads a part of the screen.
func (m *topModel) title(text string) string { return m.paint(bold, text) }

func (m *topModel) clusterLines() []string {
	line := "wasmatrix"
	if s := m.status; s != nil {
		leader := s.Leader.Name
		if leader == "" {
			leader = "nobody"
		}
		line = fmt.Sprintf("cluster %.8s  leader %s  term %d  voters %s", clean(s.ClusterID), clean(leader), s.Term, clean(strings.Join(s.Voters, ", ")))
	}
	clock := ""
	if !m.now.IsZero() {
		clock = m.now.Local().Format(time.TimeOnly)
	}
	if room := m.width - len(clock) - len(gap); clock != "" && room > 0 {
		line = pad(shorten(line, room), room) + gap + clock
	}
	return []string{m.title(line), m.sign()}
}

// sign is what someone at the screen must know first; where all is well, how the cluster is.
func (m *topModel) sign() string {
	s := m.status
	switch {
	case rpc.CodeOf(m.err) == rpc.NoLeader:
		return m.paint(red, nobodyLeads+", "+m.since())
	case m.err != nil:
		return m.paint(red, clean(fmt.Sprintf("no whole answer from %s, %s; trying again: %s", m.addr, m.since(), rpc.FromError(m.err).Message)))
	case s == nil:
		return "asking " + m.addr
	case s.Leader.Name == "":
		return m.paint(red, nobodyLeads)
	case s.Recovering && len(s.MissingNodes) > 0:
		return m.paint(yellow, "recovering: no answer yet from "+clean(strings.Join(s.MissingNodes, ", ")))
	case s.Recovering:
		return m.paint(yellow, "recovering: the leader is new and still asks the nodes what they run")
	case !m.leaderChangedAt.IsZero() && m.now.Sub(m.leaderChangedAt) < topNews:
		return m.paint(yellow, clean(fmt.Sprintf("%s leads now; %s did before", s.Leader.Name, m.formerLeader)))
	default:
		return m.summary()
	}
}

const nobodyLeads = "nobody leads: what runs goes on, and orders wait"

// since says for how long there has been no whole answer.
func (m *topModel) since() string {
	if m.well.IsZero() {
		return "from the start"
	}
	return "for " + age(&m.well, m.now)
}

func (m *topModel) summary() string {
	var words []string
	for _, state := range api.Statuses() {
		if n := m.status.Instances[state]; n > 0 {
			words = append(words, m.paint(stateColors[state], fmt.Sprintf("%d %s", n, state)))
		}
	}
	if words == nil {
		words = []string{"none"}
	}
	nodes := fmt.Sprintf("nodes: %d alive", m.status.Members.Alive)
	if n := m.status.Members.Dead; n > 0 {
		nodes += ", " + m.paint(red, fmt.Sprintf("%d dead", n))
	}
	return nodes + "   instances: " + strings.Join(words, ", ")
}

// drawn returns a table in which the row chosen stands out; -1 for none.
func (m *topModel) drawn(chosen int, draw func(io.Writer) error) []string {
	var out bytes.Buffer
	if err := draw(m.screen(&out)); err != nil { // a buffer takes all
		return []string{err.Error()}
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	lines[0] = m.title(lines[0])
	if n := chosen + 1; chosen >= 0 && n < len(lines) {
		lines[n] = reverse + pad(ansi.Strip(lines[n]), m.width) + plain
	}
	return lines
}

func (m *topModel) nodeLines() []string {
	members := slices.Clone(m.members)
	// Who is not well is seen first, however many there are.
	slices.SortStableFunc(members, func(a, b api.Member) int { return troubled(b) - troubled(a) })
	most := m.rows().nodes
	left := 0
	if len(members) > most {
		left = len(members) - most + 1
		members = members[:most-1]
	}
	lines := m.drawn(-1, func(w io.Writer) error { return loadTable(w, members) })
	if left > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more", left))
	}
	return fill(lines, most+1)
}

func troubled(m api.Member) int {
	switch m.State {
	case "alive":
		return 0
	case "left":
		return -1
	default:
		return 1
	}
}

func (m *topModel) instanceLines() []string {
	rows := m.rows().instances
	what := "INSTANCES"
	if m.all {
		what += " also ended"
	}
	if n := min(len(m.list.Instances), rows); n > 0 {
		what += fmt.Sprintf("  %d to %d of %d", m.offset+1, m.offset+n, m.list.Total)
	}
	what += "  by " + api.Sorts()[m.sort]
	if m.descending {
		what += ", reversed"
	}
	if m.filter != "" {
		what += fmt.Sprintf("  with %q", clean(m.filter))
	}
	lines := []string{m.title(what)}
	if len(m.list.Instances) == 0 {
		return fill(append(lines, m.nothing()), rows+2)
	}
	instances := m.list.Instances[:min(len(m.list.Instances), rows)]
	lines = append(lines, m.drawn(m.cursor, func(w io.Writer) error { return instanceTable(w, api.FromInstances(instances), m.now) })...)
	return fill(lines, rows+2)
}

func (m *topModel) nothing() string {
	switch {
	case m.well.IsZero():
		return ""
	case m.filter != "":
		return "none; Esc shows all again"
	case m.all:
		return "none; `wasmatrix run MODULE` starts one"
	default:
		return "none runs; a shows those that have ended, too"
	}
}

func (m *topModel) eventLines() []string {
	rows := m.rows().events
	what := "EVENTS"
	if r := m.rates; r != nil {
		what += fmt.Sprintf("  starts %s/s  crashes %s/s  calls %s/s", formatRate(r.StartsPerSecond), formatRate(r.CrashesPerSecond), formatRate(r.Calls.CallsPerSecond))
		if r.Calls.LatencyP99Seconds != nil {
			what += ", 99% within " + formatSeconds(r.Calls.LatencyP99Seconds)
		}
	}
	lines := []string{m.title(what)}
	events := lastOf(m.events, rows)
	for n := len(events) - 1; n >= 0; n-- {
		e := events[n]
		at := ""
		if e.Time != nil {
			at = e.Time.Local().Format(time.TimeOnly)
		}
		details := maps.Clone(e.Details)
		delete(details, "correlation_id") // there is no room for it
		subject := e.Name
		if e.InstanceID != "" {
			subject = fmt.Sprintf("%s %.13s", e.Name, e.InstanceID)
		}
		lines = append(lines, fmt.Sprintf("%8s  %s  %s  %s", at, m.paint(eventColors[e.Type], pad(clean(e.Type), 20)), clean(subject), clean(pairs(details))))
	}
	return fill(lines, rows+1)
}

// fill makes a part of the screen as high as it is to be.
func fill(lines []string, height int) []string {
	lines = lines[:min(len(lines), height)]
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines
}

// detailLines shows the instance that is looked at, and below it the end of what it wrote.
func (m *topModel) detailLines(height int) []string {
	d := m.detail
	lines := []string{m.title("INSTANCE " + d.id)}
	if d.instance != nil {
		i := *d.instance
		var out bytes.Buffer
		if err := fields(m.screen(&out), slices.Concat([]field{
			{"name", i.Name},
			{"status", i.Status},
			{"node", i.NodeName},
			{"module", i.ModuleHash},
			{"arguments", quoted(i.Args)},
			{"memory limit", formatSize(i.MemoryLimitBytes)},
			{"cpu", cpuWords(i)},
		}, usageFields(i), []field{
			{"capabilities", grantWords(i.Capabilities)},
			{"restart policy", policy(i.RestartPolicy)},
			{"restarts", fmt.Sprintf("%d, generation %d", i.Restarts, i.Generation)},
			{"started", moment(i.StartedAt)},
			{"finished", moment(i.FinishedAt)},
			{"last end", lastWord(i)},
		})); err != nil { // a buffer takes all
			return []string{err.Error()}
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")...)
	}
	if d.err != nil {
		lines = append(lines, m.paint(red, clean(rpc.FromError(d.err).Message)))
	}
	for n, line := range lines {
		lines[n] = ansi.Truncate(line, m.width, "…")
	}
	lines = append(lines, "", m.title("OUTPUT"))
	for _, line := range lastOf(d.lines, max(height-len(lines), 0)) {
		lines = append(lines, shorten(clean(line), m.width))
	}
	return lines
}

func (m *topModel) keys() string {
	switch {
	case m.help:
		return "any key goes back"
	case m.typing:
		return "filter: " + clean(m.filter) + "▏  Enter keeps it, Esc shows all"
	case m.detail != nil:
		return "Esc back   ? help   q quit"
	default:
		return "↑↓ choose  Enter look  / filter  s sort  r reverse  a all  ? help  q quit"
	}
}

func topHelp() []string {
	return strings.Split(`
  up, down, j, k      choose an instance
  PgUp, PgDn, Space   by a screen
  Home, End, g, G     the first, the last
  Enter               look at it and at what it writes
  /                   show those with a text in id, name, module, node or error
  Esc                 show all again; back
  s                   sort by the next of: `+strings.Join(api.Sorts(), ", ")+`
  r                   sort the other way round
  a                   also those that have ended
  q, Ctrl-C           quit

  The cluster is asked each second, events and output come as they happen. Nothing is
  changed from here: see `+"`wasmatrix --help`"+` for what does.`, "\n")
}
