package cli

import (
	"slices"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"

	"github.com/wasmatrix/wasmatrix/api"
)

// topModel is what the screen shows, and what its user has chosen. Update changes it, View in top_view.go draws it; neither
// asks anybody, which commands of the feed do.
type topModel struct {
	feed  *topFeed
	addr  string
	color bool

	width, height int
	now           time.Time

	// What was heard last.
	status  *api.Status
	members []api.Member
	rates   *api.Sample
	list    api.List
	events  []api.Event // the newest last

	asked bool      // a snapshot is under way
	err   error     // why the last one is not whole
	well  time.Time // when one last was

	leader          string // the last that was heard of
	formerLeader    string // whose place it took
	leaderChangedAt time.Time

	// What the user looks at.
	filter     string
	typing     bool // the filter
	sort       int  // of api.Sorts
	descending bool
	all        bool
	offset     int    // of the first instance shown
	cursor     int    // the row of the one chosen
	chosen     string // its id; empty where it is not known yet
	looks      bool   // at that one, once it is known
	help       bool
	detail     *topDetail
}

// topDetail is the one instance that is looked at.
type topDetail struct {
	id       string
	instance *api.Instance
	err      error
	lines    []string
	stop     func() // of its output; nil until that is followed
}

const (
	topEvery  = time.Second // the cluster is asked again
	topEvents = 200         // remembered, more than any screen shows
	topLines  = 500
	// topNews is how long a change of leader is told of.
	topNews = 15 * time.Second
)

func newTopModel(feed *topFeed, addr string, color bool) *topModel {
	return &topModel{feed: feed, addr: addr, color: color, width: 80, height: 24, sort: slices.Index(api.Sorts(), "created")}
}

// topTick comes each topEvery.
type topTick time.Time

// topFollowing says that the output of an instance is followed.
type topFollowing struct {
	id   string
	stop func()
}

func tick() tea.Cmd { return tea.Tick(topEvery, func(t time.Time) tea.Msg { return topTick(t) }) }

// Init asks for the first snapshot.
func (m *topModel) Init() tea.Cmd { return tea.Batch(tick(), m.ask()) }

// Update takes in what was heard or typed.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		return m, tea.Batch(m.move(0), m.ask())
	case topTick:
		m.now = time.Time(msg)
		cmds := []tea.Cmd{tick(), m.ask()}
		if m.detail != nil {
			cmds = append(cmds, m.feed.look(m.detail.id))
		}
		return m, tea.Batch(cmds...)
	case topSnapshot:
		return m, m.take(msg)
	case topEvent:
		m.events = lastOf(append(m.events, msg.event), topEvents)
	case topInstance:
		if m.looksAt(msg.id) {
			m.detail.err = msg.err
			if msg.instance != nil {
				m.detail.instance = msg.instance
			}
		}
	case topLog:
		if m.looksAt(msg.id) {
			m.detail.lines = lastOf(append(m.detail.lines, msg.line), topLines)
		}
	case topFollowing:
		if !m.looksAt(msg.id) {
			msg.stop()
		} else {
			m.detail.stop = msg.stop
		}
	case tea.KeyPressMsg:
		return m, m.key(msg)
	}
	return m, nil
}

func (m *topModel) looksAt(id string) bool { return m.detail != nil && m.detail.id == id }

func lastOf[T any](all []T, most int) []T { return all[max(len(all)-most, 0):] }

// ask asks for a snapshot. One at a time: where something else is wanted when it comes, that is asked for then.
func (m *topModel) ask() tea.Cmd {
	if m.asked {
		return nil
	}
	m.asked = true
	return m.feed.snapshot(m.query())
}

func (m *topModel) query() topQuery {
	sort, _ := api.SortNamed(api.Sorts()[m.sort])
	return topQuery{filter: m.filter, sort: sort, descending: m.descending, all: m.all, offset: m.offset, limit: max(m.height, 1)}
}

// take takes in a snapshot. What could not be had stays as it was, and the screen says since when.
func (m *topModel) take(s topSnapshot) tea.Cmd {
	m.asked = false
	m.now, m.err = s.at, s.err
	if s.err == nil {
		m.well = s.at
	}
	if s.status != nil {
		m.takeStatus(s.status)
	}
	if s.members != nil {
		m.members = s.members
	}
	m.rates = s.rates
	switch {
	case s.query != m.query():
		return m.ask() // the user wants something else by now
	case s.list == nil:
		return nil
	}
	m.list = *s.list
	if n := m.indexOf(m.chosen); n >= 0 {
		m.cursor = n
	}
	moved := m.move(0)
	if m.looks && m.chosen != "" {
		m.looks = false
		return tea.Batch(moved, m.lookAt(m.chosen))
	}
	return moved
}

func (m *topModel) takeStatus(s *api.Status) {
	m.status = s
	if now := s.Leader.Name; now != "" && now != m.leader {
		if m.leader != "" {
			m.formerLeader, m.leaderChangedAt = m.leader, m.now
		}
		m.leader = now
	}
}

// indexOf returns the row of an instance, or -1.
func (m *topModel) indexOf(id string) int {
	for n, i := range m.list.Instances {
		if i.GetInstanceId() == id {
			return n
		}
	}
	return -1
}

// move moves the cursor, and the window with it where that is left.
func (m *topModel) move(by int) tea.Cmd {
	rows := m.rows().instances
	target := max(min(m.offset+m.cursor+by, m.list.Total-1), 0)
	offset := m.offset
	switch {
	case target < offset:
		offset = target
	case target >= offset+rows:
		offset = target - rows + 1
	case offset > 0 && offset+rows > m.list.Total:
		offset = max(m.list.Total-rows, 0)
	}
	shifted := offset != m.offset
	m.offset, m.cursor, m.chosen = offset, target-offset, ""
	if shifted {
		return m.ask() // which one is chosen is known when it is there
	}
	if m.cursor < len(m.list.Instances) {
		m.chosen = m.list.Instances[m.cursor].GetInstanceId()
	}
	return nil
}

// key does what a key asks for.
func (m *topModel) key(k tea.KeyPressMsg) tea.Cmd {
	word := k.String()
	switch {
	case word == "ctrl+c":
		return m.quit()
	case m.help:
		m.help = false
		return nil
	case m.typing:
		return m.typeFilter(k)
	case word == "q":
		return m.quit()
	case word == "?":
		m.help = true
		return nil
	case m.detail != nil:
		if word == "esc" || word == "enter" || word == "backspace" || word == "left" || word == "h" {
			m.leave()
		}
		return nil
	}
	page := m.rows().instances
	m.looks = false
	switch word {
	case "up", "k":
		return m.move(-1)
	case "down", "j":
		return m.move(1)
	case "pgup", "ctrl+b":
		return m.move(-page)
	case "pgdown", "ctrl+f", "space":
		return m.move(page)
	case "home", "g":
		return m.move(-m.list.Total)
	case "end", "G":
		return m.move(m.list.Total)
	case "s":
		m.sort = (m.sort + 1) % len(api.Sorts())
		return m.fromTheTop()
	case "r":
		m.descending = !m.descending
		return m.fromTheTop()
	case "a":
		m.all = !m.all
		return m.fromTheTop()
	case "/":
		m.typing = true
	case "esc":
		m.filter = ""
		return m.fromTheTop()
	case "enter", "right", "l":
		m.looks = m.chosen == ""
		return m.lookAt(m.chosen)
	}
	return nil
}

func (m *topModel) fromTheTop() tea.Cmd {
	m.offset, m.cursor, m.chosen = 0, 0, ""
	return m.ask()
}

func (m *topModel) typeFilter(k tea.KeyPressMsg) tea.Cmd {
	switch word := k.String(); {
	case word == "enter":
		m.typing = false
		return nil
	case word == "esc":
		m.typing, m.filter = false, ""
	case word == "backspace":
		if m.filter == "" {
			m.typing = false
			return nil
		}
		letters := []rune(m.filter)
		m.filter = string(letters[:len(letters)-1])
	case word == "ctrl+u":
		m.filter = ""
	case k.Text != "" && !slices.ContainsFunc([]rune(k.Text), unicode.IsControl):
		m.filter += k.Text
	default:
		return nil
	}
	return m.fromTheTop()
}

// lookAt opens one instance.
func (m *topModel) lookAt(id string) tea.Cmd {
	if id == "" {
		return nil
	}
	m.detail = &topDetail{id: id}
	if n := m.indexOf(id); n >= 0 {
		shape := api.FromInstance(m.list.Instances[n])
		m.detail.instance = &shape
	}
	feed := m.feed
	return tea.Batch(feed.look(id), func() tea.Msg { return topFollowing{id, feed.logs(id)} })
}

func (m *topModel) leave() {
	if m.detail != nil && m.detail.stop != nil {
		m.detail.stop()
	}
	m.detail = nil
}

func (m *topModel) quit() tea.Cmd {
	m.leave()
	return tea.Quit
}
