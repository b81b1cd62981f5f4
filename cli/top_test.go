package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// cluster is one of so many instances, whose answers a test gives to the screen by hand.
type cluster struct {
	status    api.Status
	members   []api.Member
	instances []*pb.Instance
}

func topCluster(instances int) *cluster {
	c := &cluster{
		status: api.Status{
			ClusterID: "5d4c1f00-0000-4000-8000-000000000001", Leader: api.Leader{NodeID: "1", Name: "host-5"}, Term: 4, Voters: []string{"host-5", "host-6", "host-7"},
			Members: api.MemberCounts{Alive: 3, Dead: 1}, Instances: map[string]uint32{"running": uint32(instances), "crashed": 2}, Version: "v1",
		},
		members: []api.Member{
			{
				Name: "host-5", Role: "leader", State: "alive", Instances: 12, CommittedMemoryBytes: 768 << 20, MaxInstances: 10_000, MaxMemoryBytes: 19 << 30,
				Vitals: &api.Vitals{UpSeconds: 7200, CPUUsedCores: 0.31, CPUCores: 2, ResidentBytes: 120 << 20, Starts: 14, Crashes: 2},
			},
			{Name: "host-6", Role: "voter", State: "alive", Instances: 3, MaxInstances: 10_000, MaxMemoryBytes: 19 << 30},
			{Name: "host-7", Role: "voter", State: "dead", MaxInstances: 10_000, MaxMemoryBytes: 19 << 30},
		},
	}
	for n := range instances {
		i := &pb.Instance{
			InstanceId: fmt.Sprintf("01930000-%04x-7000-8000-%012x", n, n), Spec: &pb.InstanceSpec{Name: "web", MemoryLimitBytes: 64 << 20, ModuleHash: "sha256:ab12"},
			NodeName: "host-5", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, CreatedAt: timestamppb.New(sampleTime.Add(-time.Hour)), Generation: 1,
			Usage: &pb.Usage{CpuTime: durationpb.New(90 * time.Second), Fuel: 9e10, MemoryBytes: 3 << 20, MemoryPeakBytes: 3 << 20, CpuUsedCores: 0.5},
		}
		i.Spec.RestartPolicy = &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_NEVER}
		if n == 2 {
			code := int32(3)
			i.Spec.Name, i.Status, i.Restarts, i.ExitCode = "宽 worker", pb.InstanceStatus_INSTANCE_STATUS_RESTARTING, 7, &code
		}
		c.instances = append(c.instances, i)
	}
	return c
}

// answer is what the cluster says to what the screen asks for now.
func (c *cluster) answer(m *topModel) topSnapshot {
	q := m.query()
	from, status := min(q.offset, len(c.instances)), c.status
	return topSnapshot{
		query: q, at: m.now.Add(time.Second), status: &status, members: c.members, rates: &api.Sample{StartsPerSecond: 0.2},
		list: &api.List{Instances: c.instances[from:min(from+q.limit, len(c.instances))], Total: len(c.instances)},
	}
}

// topScreen is a screen of that size, some time after it was opened.
func topScreen(width, height int, c *cluster) *topModel {
	m := newTopModel(&topFeed{}, "127.0.0.1:7401", false)
	m.now = sampleTime
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	answerAll(m, c)
	for n, kind := range []string{"node.joined", "instance.started", "instance.crashed", "node.lost", "instance.relocated"} {
		at := sampleTime.Add(time.Duration(n) * time.Second)
		e := api.Event{Time: &at, Type: kind, Name: "host-7"}
		if strings.HasPrefix(kind, "instance") {
			e.InstanceID, e.Name, e.Details = c.instances[0].GetInstanceId(), "web", map[string]string{"error": "exit code 3\x1b[31m"}
		}
		m.Update(topEvent{e})
	}
	return m
}

// press types keys, and has the cluster answer what they ask for.
func press(m *topModel, c *cluster, keys ...string) {
	for _, key := range keys {
		m.Update(keyPress(key))
		answerAll(m, c)
	}
}

func answerAll(m *topModel, c *cluster) {
	for m.asked {
		m.Update(c.answer(m))
	}
}

func keyPress(key string) tea.KeyPressMsg {
	for word, code := range map[string]rune{
		"up": tea.KeyUp, "down": tea.KeyDown, "enter": tea.KeyEnter, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace,
		"pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "home": tea.KeyHome, "end": tea.KeyEnd,
	} {
		if key == word {
			return tea.KeyPressMsg{Code: code}
		}
	}
	return tea.KeyPressMsg{Code: []rune(key)[0], Text: key}
}

func frame(m *topModel) string {
	var lines []string
	for line := range strings.SplitSeq(ansi.Strip(m.View().Content), "\n") {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestFramesOfTopLookAsTheyDid(t *testing.T) {
	for name, draw := range map[string]func(c *cluster) *topModel{
		"asking": func(*cluster) *topModel { return newTopModel(&topFeed{}, "127.0.0.1:7401", false) },
		"80x24":  func(c *cluster) *topModel { return topScreen(80, 24, c) },
		"120x40": func(c *cluster) *topModel { return topScreen(120, 40, c) },
		"40x12":  func(c *cluster) *topModel { return topScreen(40, 12, c) },
		"empty": func(c *cluster) *topModel {
			empty := *c
			empty.instances = nil
			m := topScreen(80, 24, c)
			m.Update(empty.answer(m))
			return m
		},
		"filter": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			press(m, c, "/", "w", "e", "x", "backspace", "b", "s")
			return m
		},
		"sorted": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			press(m, c, "s", "r", "a", "down", "down")
			return m
		},
		"help": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			press(m, c, "?")
			return m
		},
		"instance": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			press(m, c, "down", "down", "enter")
			for n := range 30 {
				m.Update(topLog{c.instances[2].GetInstanceId(), fmt.Sprintf("line %d \x1b[2J<script>", n)})
			}
			m.Update(topLog{"another", "of another instance"})
			return m
		},
		"silent": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			m.Update(topSnapshot{query: m.query(), at: m.now.Add(5 * time.Second), err: rpc.Errorf(rpc.CommunicationFailure, "the node cannot be reached: connection refused")})
			return m
		},
		"leaderless": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			c.status.Leader = api.Leader{}
			m.Update(c.answer(m))
			return m
		},
		"noleader": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			m.Update(topSnapshot{query: m.query(), at: m.now.Add(5 * time.Second), status: m.status, err: rpc.Errorf(rpc.NoLeader, "no leader")})
			return m
		},
		"recovering": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			c.status.Leader, c.status.Recovering, c.status.MissingNodes = api.Leader{NodeID: "2", Name: "host-6"}, true, []string{"host-5"}
			m.Update(c.answer(m))
			return m
		},
		"newleader": func(c *cluster) *topModel {
			m := topScreen(80, 24, c)
			c.status.Leader = api.Leader{}
			m.Update(c.answer(m))
			c.status.Leader = api.Leader{NodeID: "2", Name: "host-6"}
			m.Update(c.answer(m))
			m.Update(c.answer(m))
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			checkGolden(t, filepath.Join("testdata", "top", name+".golden"), []byte(frame(draw(topCluster(25)))))
		})
	}
}

// Whatever is pressed, at any size: the frame fits the screen, and the row that stands out is the instance that Enter opens.
func TestTopFitsAndKnowsWhatIsChosen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := topCluster(rapid.IntRange(3, 60).Draw(t, "instances"))
		width, height := rapid.IntRange(1, 130).Draw(t, "width"), rapid.IntRange(1, 50).Draw(t, "height")
		m := topScreen(width, height, c)
		keys := []string{"up", "down", "j", "k", "pgup", "pgdown", "home", "end", "g", "G", "s", "r", "a", "/", "x", "esc", "enter", "?", "backspace"}
		for range rapid.IntRange(0, 30).Draw(t, "presses") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				c.instances = c.instances[rapid.IntRange(0, len(c.instances)/2).Draw(t, "gone"):]
				m.Update(c.answer(m))
			case 1:
				height = rapid.IntRange(1, 50).Draw(t, "height")
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
			default:
				press(m, c, rapid.SampledFrom(keys).Draw(t, "key"))
			}
			answerAll(m, c)
			lines := strings.Split(m.View().Content, "\n")
			if len(lines) > height {
				t.Fatalf("%d lines on %d", len(lines), height)
			}
			for _, line := range lines {
				if ansi.StringWidth(line) > width {
					t.Fatalf("%d columns on %d: %q", ansi.StringWidth(line), width, line)
				}
			}
			if m.detail != nil || m.help {
				continue
			}
			if len(c.instances) > 0 && (m.cursor >= len(m.list.Instances) || m.chosen != m.list.Instances[m.cursor].GetInstanceId()) {
				t.Fatalf("row %d of %d from %d is chosen, and %q", m.cursor, len(m.list.Instances), m.offset, m.chosen)
			}
			if rows := m.rows().instances; m.offset > 0 && m.offset+rows > m.list.Total || m.cursor >= rows {
				t.Fatalf("row %d of %d, from %d of %d", m.cursor, rows, m.offset, m.list.Total)
			}
		}
	})
}

func TestTopKeepsTheChosenInstanceWhenOthersCome(t *testing.T) {
	c := topCluster(8)
	m := topScreen(80, 24, c)
	press(m, c, "down", "down", "down")
	chosen := m.chosen
	c.instances = slices.Insert(c.instances, 0, topCluster(40).instances[30])
	m.Update(c.answer(m))
	if m.chosen != chosen || m.cursor != 4 {
		t.Errorf("row %d is chosen, %s; it was %s", m.cursor, m.chosen, chosen)
	}
}

// An answer to what is not asked any more must not be shown as if it were.
func TestTopAsksAgainWhenTheUserWantsSomethingElse(t *testing.T) {
	c := topCluster(25)
	m := topScreen(80, 24, c)
	late := c.answer(m)
	m.Update(keyPress("s"))
	late.list = &api.List{}
	if _, cmd := m.Update(late); cmd == nil || len(m.list.Instances) == 0 {
		t.Errorf("asked again: %v; %d instances are shown", cmd != nil, len(m.list.Instances))
	}
}

func TestEnterOpensWhatIsChosenOnceThatIsKnown(t *testing.T) {
	c := topCluster(25)
	m := topScreen(80, 24, c)
	m.Update(keyPress("s"))
	m.Update(keyPress("enter")) // which instance that is, is on its way
	if m.detail != nil {
		t.Fatalf("it shows %s, which was chosen before", m.detail.id)
	}
	m.Update(c.answer(m))
	if m.detail == nil || m.detail.id != m.chosen {
		t.Fatalf("%q is chosen, and it shows %+v", m.chosen, m.detail)
	}
	press(m, c, "esc")
	m.Update(keyPress("s"))
	m.Update(keyPress("enter"))
	m.Update(keyPress("down")) // by now the user wants something else
	m.Update(c.answer(m))
	if m.detail != nil {
		t.Errorf("it shows %s, though another key came since", m.detail.id)
	}
}

func TestTopStopsFollowingWhatIsNotLookedAtAnyMore(t *testing.T) {
	c := topCluster(8)
	m := topScreen(80, 24, c)
	press(m, c, "enter")
	first, stopped := m.chosen, 0
	m.Update(topFollowing{first, func() { stopped++ }})
	press(m, c, "esc")
	if stopped != 1 || m.detail != nil {
		t.Errorf("left, and stopped %d times", stopped)
	}
	m.Update(topFollowing{first, func() { stopped++ }}) // it took a while
	if stopped != 2 {
		t.Error("a stream of an instance that was left goes on")
	}
}

func TestTopIsForTerminals(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, to := range []io.Writer{out, io.Discard} {
		var errs strings.Builder
		code := Main([]string{"wasmatrix", "top"}, to, &errs, Build{})
		if code != 2 || !strings.Contains(errs.String(), "needs a terminal; in scripts use `wasmatrix ps`") {
			t.Errorf("exit code %d: %s", code, errs.String())
		}
	}
}
