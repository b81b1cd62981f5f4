package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	rulesFile     = "prometheus/wasmatrix.rules.yml"
	dashboardFile = "grafana/wasmatrix.json"
)

func TestPrometheusTakesRulesAndConfiguration(t *testing.T) {
	promtool := program(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", filepath.Base(rulesFile)},
		{"check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"},
		{"test", "rules", "wasmatrix.rules.test.yml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Dir(rulesFile)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

func TestEachAlertHasATestAndAPage(t *testing.T) {
	rules, tests, page := read(t, rulesFile), read(t, "prometheus/wasmatrix.rules.test.yml"), read(t, "../docs/alerts.md")
	var names []string
	for _, rule := range strings.Split(rules, "- alert: ")[1:] {
		name, _, _ := strings.Cut(rule, "\n")
		names = append(names, name)
		if want := "docs/alerts.md#" + strings.ToLower(name) + "\n"; !strings.Contains(rule, "runbook_url: https://github.com/wasmatrix/wasmatrix/blob/main/"+want) {
			t.Errorf("%s does not point to %s", name, want)
		}
		if !strings.Contains(tests, `alertname="`+name+`"`) {
			t.Errorf("no test has %s fire", name)
		}
		if !strings.Contains(page, "\n## "+name+"\n") {
			t.Errorf("docs/alerts.md has no %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/alerts.md has %s, which is no alert", m[1])
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d alerts found: does this test still read them right?", len(names))
	}
}

// What rules and dashboard ask for must be there, with those labels: docs/metrics.md is compared with what a node shows.
func TestRulesAndDashboardAskForWhatThereIs(t *testing.T) {
	known := documented(t)
	asked := expressions(t)
	for _, expr := range regexp.MustCompile(`(?m)^ +expr: (.+(?:\n {10}.+)*)`).FindAllStringSubmatch(read(t, rulesFile), -1) {
		asked[expr[1]] = rulesFile
	}
	if len(asked) < 80 {
		t.Errorf("only %d expressions found: does this test still read them right?", len(asked))
	}
	// Of those that libraries make, and Prometheus itself.
	foreign := map[string]string{"up": "", "go_gc_duration_seconds": "quantile"}
	metric := regexp.MustCompile(`\b((?:wasmatrix|go|process)_\w+|up)\b(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	for expr, where := range asked {
		for _, m := range metric.FindAllStringSubmatch(expr, -1) {
			name, more := m[1], ""
			labels, ours := known[name]
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if base, cut := strings.CutSuffix(name, suffix); cut && !ours {
					labels, ours = known[base]
					more = "le"
				}
			}
			if !ours && strings.HasPrefix(name, "wasmatrix_") {
				t.Errorf("%s asks for %s, which is not in docs/metrics.md: %s", where, name, expr)
			}
			if !ours {
				labels = []string{foreign[name]}
			}
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(append(labels, more, "cluster", "instance", "job"), l[1]) {
					t.Errorf("%s asks for the label %s of %s, which has %v: %s", where, l[1], name, labels, expr)
				}
			}
		}
	}
	grouped := regexp.MustCompile(`\b(?:by|on) ?\(([^)]*)\)`)
	all := []string{"le", "cluster", "instance", "job"}
	for _, labels := range known {
		all = append(all, labels...)
	}
	for expr, where := range asked {
		for _, m := range grouped.FindAllStringSubmatch(expr, -1) {
			for _, label := range strings.Split(m[1], ",") {
				if !slices.Contains(all, strings.TrimSpace(label)) {
					t.Errorf("%s groups by %s, which no metric has: %s", where, label, expr)
				}
			}
		}
	}
}

// documented returns the labels of each metric of docs/metrics.md.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	known := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(wasmatrix_\\w+)` \\| \\w+ \\| ([^|]*) \\|").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		known[m[1]] = strings.Fields(strings.NewReplacer("`", "", ",", "", "none", "").Replace(m[2]))
	}
	if len(known) < 50 {
		t.Fatalf("only %d metrics found in docs/metrics.md: does this test still read it right?", len(known))
	}
	return known
}

// board is as much of a dashboard as is looked at.
type board struct {
	Title, UID    string
	SchemaVersion int
	Panels        []boardPanel
	Templating    struct{ List []struct{ Name, Type string } }
}

type boardPanel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct{ Expr, LegendFormat string }
}

func dashboard(t *testing.T) board {
	t.Helper()
	var b board
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &b); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	return b
}

// expressions returns those of the dashboard, as Prometheus is asked them, and which panel each is of.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, p := range dashboard(t).Panels {
		for _, target := range p.Targets {
			all[strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")] = dashboardFile + ", " + p.Title
		}
	}
	return all
}

func TestDashboardIsComplete(t *testing.T) {
	b := dashboard(t)
	var variables, rows []string
	for _, v := range b.Templating.List {
		variables = append(variables, v.Name+": "+v.Type)
	}
	if want := []string{"datasource: datasource", "cluster: query", "node: query"}; !slices.Equal(variables, want) {
		t.Errorf("the variables are %q, want %q", variables, want)
	}
	if b.Title != "wasmatrix" || b.UID != "wasmatrix" || b.SchemaVersion < 39 {
		t.Errorf("the dashboard is %q (%s) of schema %d", b.Title, b.UID, b.SchemaVersion)
	}
	ids, cells := map[int]string{}, map[[2]int]string{}
	for _, p := range b.Panels {
		if other, twice := ids[p.ID]; twice || p.ID == 0 {
			t.Errorf("panels %q and %q have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken || x >= 24 {
					t.Fatalf("panel %q is over %q, or over the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q lacks title, description, unit, expression or the variable data source", p.Title)
		}
		if strings.Contains(strings.ToLower(fmt.Sprint(p.Targets)), "instance_id") {
			t.Errorf("panel %q asks for single instances", p.Title)
		}
	}
	if want := []string{"Cluster", "Nodes", "Instances", "Starts", "Capabilities", "Raft and gossip", "Runtime"}; !slices.Equal(rows, want) {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
}

// Prometheus' own parser reads each expression, as that of a rule.
func TestDashboardAsksWhatPrometheusUnderstands(t *testing.T) {
	promtool := program(t, "promtool")
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for expr := range expressions(t) {
		rules = append(rules, rule{fmt.Sprintf("dashboard:%d", len(rules)), expr})
	}
	raw, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, said)
	}
}
