package web

import (
	"slices"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
)

func TestOverviewSaysWhatIsWrongTheWorstFirst(t *testing.T) {
	alive := func(name, role string) api.Member {
		return api.Member{NodeID: name, Name: name, Role: role, State: "alive", Version: "v1"}
	}
	in := func(state string, m api.Member) api.Member { m.State = state; return m }
	three := []api.Member{alive("a", "leader"), alive("b", "voter"), alive("c", "voter")}
	healthy := api.Status{Voters: []string{"a", "b", "c"}, Instances: map[string]uint32{"running": 7, "stopped": 2}}
	for name, c := range map[string]struct {
		change  func(*api.Status, []api.Member)
		level   string
		worries []string
	}{
		"nothing": {func(*api.Status, []api.Member) {}, "good", nil},
		"a node left": {
			func(_ *api.Status, m []api.Member) { m[2] = in("left", alive("d", "agent")) }, "good", nil,
		},
		"a voter is dead": {
			func(_ *api.Status, m []api.Member) { m[2] = in("dead", m[2]) }, "bad",
			[]string{"Node c is dead", "1 of 3 voters are dead: with one more the cluster has no leader"},
		},
		"an agent is dead": {
			func(_ *api.Status, m []api.Member) { m[2] = in("dead", alive("d", "agent")) }, "bad", []string{"Node d is dead"},
		},
		"a node is drained and things restart": {
			func(s *api.Status, m []api.Member) { m[1] = in("draining", m[1]); s.Instances["restarting"] = 1 }, "warn",
			[]string{"Node b is drained and takes no new instances", "1 instance waits for its next start"},
		},
		"crashes come before restarts": {
			func(s *api.Status, _ []api.Member) { s.Instances["restarting"] = 3; s.Instances["crashed"] = 2 }, "bad",
			[]string{"2 instances crashed and are not started again", "3 instances wait for their next start"},
		},
		"versions differ": {
			func(_ *api.Status, m []api.Member) { m[1].Version = "v2" }, "warn", []string{"Nodes run different versions: v1, v2"},
		},
	} {
		status := healthy
		status.Instances = map[string]uint32{"running": 7, "stopped": 2}
		members := slices.Clone(three)
		c.change(&status, members)
		got := judge(&status, members, nil)
		var worries []string
		for _, w := range got.Concerns {
			worries = append(worries, w.Text)
		}
		if got.Level != c.level || !slices.Equal(worries, c.worries) {
			t.Errorf("%s: %s %q, want %s %q", name, got.Level, worries, c.level, c.worries)
		}
	}
}

func TestLifeIsDrawnFromWhatHappened(t *testing.T) {
	at := func(seconds int) *time.Time { moment := noon.Add(time.Duration(seconds) * time.Second); return &moment }
	events := []api.Event{ // the newest first
		{Type: "instance.restarted", Time: at(80)},
		{Type: "capability.granted", Time: at(70)},
		{Type: "instance.crashed", Time: at(60)},
		{Type: "instance.started", Time: at(0)},
	}
	got := stripOf(api.Instance{Status: "running"}, events, *at(100))
	want := []span{{"running", 0, 600}, {"crashed", 600, 200}, {"running", 800, 200}}
	if !slices.Equal(got.Spans, want) || !got.Now {
		t.Errorf("%+v", got)
	}
	ended := stripOf(api.Instance{Status: "stopped", FinishedAt: at(90)}, append([]api.Event{{Type: "instance.stopped", Time: at(90)}}, events...), *at(10_000))
	if last := ended.Spans[len(ended.Spans)-1]; ended.Now || last.State != "stopped" || last.Wide > 30 {
		t.Errorf("an ended life: %+v", ended)
	}
	if none := stripOf(api.Instance{}, nil, noon); len(none.Spans) != 0 {
		t.Errorf("of nothing: %+v", none)
	}
	// Clocks of two nodes may disagree: what ends before it began has no width, and nothing leaves the strip.
	for _, s := range stripOf(api.Instance{}, []api.Event{{Type: "instance.relocated", Time: at(5)}, {Type: "instance.crashed", Time: at(200)}, {Type: "instance.started", Time: at(0)}}, *at(100)).Spans {
		if s.At < 0 || s.Wide < 0 || s.At+s.Wide > 1000 {
			t.Errorf("%+v leaves the strip", s)
		}
	}
}

func TestWordsOfGuestsAreShownAndNotObeyed(t *testing.T) {
	for given, want := range map[string]string{
		"plain, ümlaut 日本 \t": "plain, ümlaut 日本 \t",
		"a\nb\x1b[0m\x7f":     "a␊b␛[0m␡",
		"\u202e\u200f\u2066":  `\u202e\u200f\u2066`,
		"\x85\u0085":          "\ufffd\\u0085",
		"":                    "",
	} {
		if got := plain(given); got != want {
			t.Errorf("%q is shown as %q, want %q", given, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b\u202e\xff")
	f.Fuzz(func(t *testing.T, words string) {
		shown := plain(words)
		for _, r := range shown {
			if obeyed(r) {
				t.Fatalf("%q is shown as %q", words, shown)
			}
		}
		if plain(shown) != shown {
			t.Fatalf("%q is no longer itself: %q", shown, plain(shown))
		}
	})
}
