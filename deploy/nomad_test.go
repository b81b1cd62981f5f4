package deploy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const jobFile = "nomad/wasmatrix.nomad.hcl"

// jobSpec is what Nomad's documentation of the job specification has, as far as a job like ours could want it: for each kind of
// block the attributes that it takes, and the blocks.
var jobSpec = map[string]struct{ attributes, blocks []string }{
	"": {nil, []string{"variable", "job"}},
	"variable": {
		[]string{"type", "default", "description"},
		nil,
	},
	"job": {
		[]string{"datacenters", "id", "name", "namespace", "node_pool", "priority", "region", "type"},
		[]string{"affinity", "constraint", "group", "meta", "reschedule", "spread", "update"},
	},
	"constraint": {[]string{"attribute", "operator", "value"}, nil},
	"update": {
		[]string{"auto_promote", "auto_revert", "canary", "health_check", "healthy_deadline", "max_parallel", "min_healthy_time", "progress_deadline", "stagger"},
		nil,
	},
	"group": {
		[]string{"count", "shutdown_delay"},
		[]string{"affinity", "constraint", "disconnect", "ephemeral_disk", "meta", "network", "reschedule", "restart", "service", "spread", "task", "update", "volume"},
	},
	"network": {[]string{"hostname", "mode"}, []string{"dns", "port"}},
	"port":    {[]string{"host_network", "static", "to"}, nil},
	"restart": {[]string{"attempts", "delay", "interval", "mode", "render_templates"}, nil},
	"service": {
		[]string{"address", "address_mode", "name", "on_update", "port", "provider", "tags", "task"},
		[]string{"check", "meta"},
	},
	"check": {
		[]string{"address_mode", "body", "failures_before_critical", "interval", "method", "name", "on_update", "path", "port", "protocol", "success_before_passing", "timeout", "type"},
		[]string{"check_restart", "header"},
	},
	"task": {
		[]string{"driver", "kill_signal", "kill_timeout", "leader", "shutdown_delay", "user"},
		[]string{"artifact", "config", "constraint", "env", "identity", "lifecycle", "logs", "meta", "resources", "restart", "service", "template", "volume_mount"},
	},
	"config": {[]string{"args", "command", "work_dir"}, nil}, // of raw_exec
	"template": {
		[]string{"change_mode", "change_signal", "data", "destination", "env", "error_on_missing_key", "once", "perms", "source", "splay"},
		[]string{"wait"},
	},
	"resources": {[]string{"cores", "cpu", "memory", "memory_max"}, nil},
}

// Nomad itself runs the job in e2e, where it is installed.
func TestNomadJobIsWhatNomadsDocumentationHas(t *testing.T) {
	body := job(t)
	var walk func(kind string, body *hclsyntax.Body)
	walk = func(kind string, body *hclsyntax.Body) {
		spec := jobSpec[kind]
		for name, a := range body.Attributes {
			if !slices.Contains(spec.attributes, name) {
				t.Errorf("%s: a block %q takes no %s", a.Range(), kind, name)
			}
		}
		for _, b := range body.Blocks {
			if _, known := jobSpec[b.Type]; !known || !slices.Contains(spec.blocks, b.Type) {
				t.Errorf("%s: a block %q takes no block %s", b.Range(), kind, b.Type)
			}
			walk(b.Type, b.Body)
		}
	}
	walk("", body)

	declared := map[string]bool{}
	for _, b := range body.Blocks {
		if b.Type == "variable" {
			declared[b.Labels[0]] = true
		}
	}
	problems := hclsyntax.VisitAll(body, func(n hclsyntax.Node) hcl.Diagnostics {
		e, refers := n.(*hclsyntax.ScopeTraversalExpr)
		if !refers || len(e.Traversal) < 2 {
			return nil
		}
		name, _ := e.Traversal[1].(hcl.TraverseAttr)
		if e.Traversal.RootName() == "var" && !declared[name.Name] {
			t.Errorf("%s: no variable %s", e.Range(), name.Name)
		}
		return nil
	})
	if problems.HasErrors() {
		t.Error(problems)
	}
}

func TestNomadJobGivesANodeTimeToLeave(t *testing.T) {
	content := read(t, jobFile)
	seconds := regexp.MustCompile(`(?s)kill_timeout += "30s".*"--drain-timeout", "25s"`)
	if !seconds.MatchString(content) {
		t.Error("kill_timeout is to be the 30 s that a Nomad client allows by itself, and --drain-timeout less than that")
	}
}

func TestNomadJobUsesFlagsThatThereAre(t *testing.T) {
	reference := read(t, "../docs/cli.md")
	used := regexp.MustCompile(`"(--[a-z-]+)"`).FindAllStringSubmatch(read(t, jobFile), -1)
	if len(used) == 0 {
		t.Fatal("no flag found: does this test still read the job right?")
	}
	for _, m := range used {
		if !strings.Contains(reference, "`"+m[1]+" ") {
			t.Errorf("the job uses %s, which docs/cli.md does not have", m[1])
		}
	}
}

func job(t *testing.T) *hclsyntax.Body {
	t.Helper()
	file, problems := hclsyntax.ParseConfig([]byte(read(t, jobFile)), jobFile, hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return file.Body.(*hclsyntax.Body)
}
