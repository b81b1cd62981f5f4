package deploy

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// modules are what Ansible's own collection has of what the role uses.
var modules = []string{
	"ansible.builtin.apt", "ansible.builtin.assert", "ansible.builtin.command", "ansible.builtin.copy", "ansible.builtin.dnf",
	"ansible.builtin.include_role", "ansible.builtin.service_facts", "ansible.builtin.set_fact", "ansible.builtin.systemd",
	"ansible.builtin.template", "ansible.builtin.uri",
}

// keywords are what a task may say beside its module.
var keywords = []string{"changed_when", "delay", "name", "register", "retries", "until", "when"}

func TestAnsibleTasksHaveANameAndAModule(t *testing.T) {
	tasks := 0
	for _, file := range []string{"ansible/roles/wasmatrix/tasks/main.yml", "ansible/roles/wasmatrix/tasks/restart.yml"} {
		var all []map[string]any
		parseYAML(t, file, &all)
		for _, task := range all {
			tasks++
			used := 0
			for word := range task {
				switch {
				case slices.Contains(modules, word):
					used++
				case !slices.Contains(keywords, word):
					t.Errorf("%s: task %q says %s, which this test does not know", file, task["name"], word)
				}
			}
			if used != 1 || task["name"] == nil {
				t.Errorf("%s: task %q has %d modules", file, task["name"], used)
			}
		}
	}
	if tasks < 10 {
		t.Errorf("only %d tasks found: does this test still read the right files?", tasks)
	}
	var plays []struct{ Hosts string }
	parseYAML(t, "ansible/playbook.yml", &plays)
	if len(plays) != 2 {
		t.Errorf("%d plays", len(plays))
	}
	// Every variable of the role has its default.
	var defaults map[string]any
	parseYAML(t, "ansible/roles/wasmatrix/defaults/main.yml", &defaults)
	var inventory map[string]struct{ Vars map[string]any }
	parseYAML(t, "ansible/inventory.example.yml", &inventory)
	for name := range inventory["wasmatrix"].Vars {
		if _, known := defaults[name]; !known {
			t.Errorf("the inventory sets %s, which the role does not have", name)
		}
	}
}

func TestAnsibleTakesThePlaybook(t *testing.T) {
	ansible := program(t, "ansible-playbook")
	cmd := exec.Command(ansible, "-i", "inventory.example.yml", "--syntax-check", "playbook.yml")
	cmd.Dir = "ansible"
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("ansible-playbook --syntax-check: %v\n%s", err, said)
	}
}

func TestAnsibleUsesCommandsThatThereAre(t *testing.T) {
	reference := read(t, "../docs/cli.md")
	commands := regexp.MustCompile(`argv: \[wasmatrix, (\w+), (\w+),(.*)\]`).FindAllStringSubmatch(read(t, "ansible/roles/wasmatrix/tasks/restart.yml"), -1)
	if len(commands) != 2 {
		t.Fatalf("%d commands found: does this test still read the role right?", len(commands))
	}
	for _, m := range commands {
		_, section, found := strings.Cut(reference, "wasmatrix "+m[1]+" "+m[2])
		if !found {
			t.Errorf("docs/cli.md has no wasmatrix %s %s", m[1], m[2])
		}
		for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(m[3], -1) {
			if !strings.Contains(section, flag) {
				t.Errorf("wasmatrix %s %s has no %s", m[1], m[2], flag)
			}
		}
	}
}

func TestCloudInitTakesTheUserData(t *testing.T) {
	const file = "cloud-init/user-data.yaml"
	if !strings.HasPrefix(read(t, file), "#cloud-config\n") {
		t.Error("cloud-init knows its files by their first line")
	}
	var data struct {
		WriteFiles []struct{ Path, Permissions, Content string } `yaml:"write_files"`
		RunCmd     []string
	}
	parseYAML(t, file, &data)
	if len(data.WriteFiles) != 1 || len(data.RunCmd) != 1 {
		t.Fatalf("it writes %d files and runs %d commands", len(data.WriteFiles), len(data.RunCmd))
	}
	// cloud-init gives its commands to sh.
	if said, err := exec.Command("sh", "-n", "-c", data.RunCmd[0]).CombinedOutput(); err != nil {
		t.Errorf("sh does not take the command: %v\n%s", err, said)
	}
	if cloudInit, err := exec.LookPath("cloud-init"); err == nil {
		if said, err := exec.Command(cloudInit, "schema", "--config-file", file).CombinedOutput(); err != nil {
			t.Errorf("cloud-init schema: %v\n%s", err, said)
		}
	}
}

// parseYAML reads a file.
func parseYAML(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, filepath.FromSlash(file))), into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
