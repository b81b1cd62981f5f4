package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// fileFlags are the flags that a configuration file may set.
func fileFlags() []cli.Flag {
	return slices.DeleteFunc(agentFlags(), func(f cli.Flag) bool { return slices.Contains(notInFile, f.Names()[0]) })
}

func TestConfigurationReferenceIsUpToDate(t *testing.T) {
	checkGolden(t, filepath.Join("..", "docs", "configuration.md"), []byte(configuration()))
}

func configuration() string {
	var b strings.Builder
	b.WriteString("# Configuration of a node\n\n<!-- Made from the flags of `wasmatrix agent` by `go test ./cli -update`. -->\n\n" +
		"Each setting is a flag of `wasmatrix agent`, an environment variable, and a key of the file that `--config FILE` names. The command line\n" +
		"goes before the environment, that before the file, and that before the default. An environment variable that is empty counts as not set.\n\n" +
		"The file is YAML: one map whose keys are the flags' names. Lists are YAML lists, labels a map; a SIZE is like 8GiB, a TIME like 30s or 2m.\n" +
		"It is read strictly: an unknown key, one that comes twice, and a value of the wrong type or range are errors with file, line and column.\n" +
		"Paths in it are relative to where the node was started. [deploy/wasmatrix.yaml](../deploy/wasmatrix.yaml) is one to start from.\n\n" +
		"```yaml\nbind: 10.0.0.7\njoin: [10.0.0.5, 10.0.0.6]\nlabel: {zone: a, disk: ssd}\nmax-memory: 8GiB\n```\n\n" +
		"`wasmatrix agent --check-config`, with the same flags and environment as the node, says all that is wrong and exits with 2, or says `ok` and\n" +
		"where each value that is no default comes from, and exits with 0. It makes nothing, and does not disturb a node that runs.\n\n" +
		"SIGHUP makes a node read its file again. Settings marked *at once* take effect then. Of others that have changed the log says so, and they\n" +
		"take effect with the next start. A file that is wrong changes nothing, and the log says what is wrong. The level goes back to the file's\n" +
		"where it was changed with `wasmatrix operator log-level`.\n\n" +
		"| file | value | default | meaning | flag | environment | a change takes effect |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, f := range agentFlags() {
		doc := f.(cli.DocGenerationFlag) // TestEachFlagHasItsEnvironmentVariable
		name, key, when := f.Names()[0], "`"+f.Names()[0]+"`", "with the next start"
		if slices.Contains(notInFile, name) {
			key, when = "", ""
		}
		if slices.ContainsFunc(whileRunning(), func(c changeable) bool { return c.flag == name }) {
			when = "at once"
		}
		fallback := strings.Trim(doc.GetDefaultText(), `"`)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | `--%s` | `%s` | %s |\n", key, valueKind(f), cmp.Or(fallback, "none"),
			placeholder.ReplaceAllString(doc.GetUsage(), "$1"), name, doc.GetEnvVars()[0], when)
	}
	return b.String()
}

func valueKind(f cli.Flag) string {
	switch f.(type) {
	case *cli.StringSliceFlag:
		if valueName(f) == "K=V" {
			return "map"
		}
		return "list"
	case *cli.IntFlag, *cli.Float64Flag:
		return "number"
	case *cli.BoolFlag:
		return "true or false"
	case *cli.DurationFlag:
		return "time"
	}
	if valueName(f) == "SIZE" {
		return "size"
	}
	return "text"
}

func TestWhatChangesWhileANodeRunsIsAFlag(t *testing.T) {
	for _, c := range whileRunning() {
		if !slices.ContainsFunc(fileFlags(), func(f cli.Flag) bool { return f.Names()[0] == c.flag }) {
			t.Errorf("there is no flag %q", c.flag)
		}
	}
}

func TestExampleFileIsGoodAndHasEachSetting(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "wasmatrix.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := decodeConfig("wasmatrix.yaml", raw, fileFlags())
	if err != nil {
		t.Error(err)
	}
	whole := regexp.MustCompile(`(?m)^#([a-z-]+:)`).ReplaceAll(raw, []byte("$1"))
	settings, err := decodeConfig("wasmatrix.yaml", whole, fileFlags())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fileFlags() {
		name := f.Names()[0]
		one, there := settings[name]
		if !there {
			t.Errorf("%s is not in it", name)
		}
		// What is commented out is the default, where that is a value and not a sentence.
		fallback := strings.Trim(f.(cli.DocGenerationFlag).GetDefaultText(), `"`)
		if chosen[name].place == "" && fallback != "" && !strings.Contains(fallback, " ") && one.values[0] != fallback {
			t.Errorf("%s: %q, and the default is %q", name, one.values[0], fallback)
		}
	}
}

func TestFileIsReadByTheTypesOfTheFlags(t *testing.T) {
	got, err := decodeConfig("f", []byte("voters: 5\njoin:\n  - 10.0.0.5\n  - '[::1]:7400'\nlabel: {zone: a, 'rack': \"12\"}\ntiming-multiplier: 2\n"+
		"max-memory: 65536\ndrain-timeout: 1m\nbind: 10.0.0.7\nname: \"007\"\netcd-endpoints: []\n"), fileFlags())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]setting{
		"voters": {[]string{"5"}, "f:1:9"}, "join": {[]string{"10.0.0.5", "[::1]:7400"}, "f:3:3"}, "label": {[]string{"zone=a", "rack=12"}, "f:5:8"},
		"timing-multiplier": {[]string{"2"}, "f:6:20"}, "max-memory": {[]string{"65536"}, "f:7:13"}, "drain-timeout": {[]string{"1m"}, "f:8:16"},
		"bind": {[]string{"10.0.0.7"}, "f:9:7"}, "name": {[]string{"007"}, "f:10:7"}, "etcd-endpoints": {nil, "f:11:17"},
	}
	if !maps.EqualFunc(got, want, func(a, b setting) bool { return a.place == b.place && slices.Equal(a.values, b.values) }) {
		t.Errorf("%v\nwant %v", got, want)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "~\n"} {
		if got, err := decodeConfig("f", []byte(empty), fileFlags()); err != nil || len(got) > 0 {
			t.Errorf("%q: %v, %v", empty, got, err)
		}
	}
}

func TestWrongFileSaysWhereAndWhatWouldBeRight(t *testing.T) {
	for content, want := range map[string]string{
		"voters: many":               `f:1:9: voters: want a whole number, as in ` + "`voters: 3`" + `, and this is the text "many"`,
		"voters: 3.0":                "f:1:9: voters: want a whole number",
		"voters: 99999999999":        "f:1:9: voters: want a whole number",
		"voters: [3]":                "f:1:9: voters: want a whole number, as in `voters: 3`, and this is a list",
		"\nvoters: 3\nvoters: 5":     "f:3:1: voters is here twice, first in line 2",
		"voter: 3":                   `f:1:1: there is no setting "voter"; did you mean "voters"?`,
		"max_instances: 3":           `did you mean "max-instances"?`,
		"Drain-Timeout: 3s":          `did you mean "drain-timeout"?`,
		"storage: x":                 `f:1:1: there is no setting "storage"; keys are the names of the flags`,
		"check-config: true":         "f:1:1: check-config is for the command line only",
		"drain-timeout: 30":          "f:1:16: drain-timeout: want a time with its unit, as in `drain-timeout: 30s`, and this is a YAML int, 30",
		"drain-timeout: soon":        "want a time with its unit",
		"max-memory: 1,5GiB":         "f:1:13: max-memory: want a size, as in `max-memory: 8GiB`",
		"timing-multiplier: fast":    "want a number",
		"name: 007":                  `f:1:7: name: want text, and this is a YAML int, 007: put it in quotes, "007"`,
		"name: true":                 `put it in quotes, "true"`,
		"name:":                      "f:1:6: name has no value",
		"join: 10.0.0.5":             "f:1:7: join: want a list, as in `join: [a, b]`",
		"join: [a, 7]":               "f:1:11: join: want text",
		"join: ['a,b']":              "has a comma",
		"label: [zone=a]":            "f:1:8: label: want a map, as in `label: {zone: a, disk: ssd}`, and this is a list",
		"label: {rack: 12}":          `f:1:15: label rack: want text, and this is a YAML int, 12: put it in quotes, "12"`,
		"label: {a: b, a: c}":        "f:1:15: a is here twice, first in line 1",
		"label: {a=b: c}":            "has no equals sign",
		"label: {zone: }":            "label zone: want text, and this is nothing",
		"- voters":                   "f:1:1: want lines like `voters: 3`, and this is a list",
		"voters":                     "want lines like",
		"name: &a x\ndata-dir: *a":   "f:2:11: data-dir: aliases are not read here",
		"<<: {voters: 3}":            "f:1:1: a key is text",
		"voters: 3\n---\nvoters: 5":  "f:2:1: a second document begins",
		"join: [a\nvoters: 3":        "f:2:7: this is no YAML",
		"voters: 3\n\tjoin: [a]":     "this is no YAML",
		"name: \x00":                 "f: this is no YAML: control characters are not allowed",
		"name: *nobody":              "f:1:7: this is no YAML: unknown anchor 'nobody' referenced",
		"name: !!binary aGk=":        "name: want text",
		"name: !secret x":            "name: want text",
		"voters: many\njoin: here":   "f:2:7: join: want a list",
		"log-level: {all: debug}\n#": "f:1:12: log-level: want text, and this is a map",
	} {
		_, err := decodeConfig("f", []byte(content), fileFlags())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", content, err, want)
		}
	}
}

func TestWrongFileTellsNoPassword(t *testing.T) {
	for _, content := range []string{
		"event-webhook: http://me:hush@h/p", "event-webhook: ['http://me:hush,@h']", "event-webhook: [!x http://me:hush@h]", "voters: http://me:hush@h",
	} {
		if _, err := decodeConfig("f", []byte(content), fileFlags()); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func FuzzDecodeConfig(f *testing.F) {
	for _, s := range []string{"voters: 3", "join: [a, b]\nlabel: {a: b}", "- a", "? [a]\n: b", "a: &a [*a]", "max-memory: 8GiB\n---\n", "\xef\xbb\xbfname: x", "name: |\n  a"} {
		f.Add([]byte(s))
	}
	flags := fileFlags()
	place := regexp.MustCompile(`^f(:\d+:\d+)?: `)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := decodeConfig("f", raw, flags)
		var joined interface{ Unwrap() []error }
		all := []error{err}
		if errors.As(err, &joined) {
			all = joined.Unwrap()
		}
		for _, one := range all {
			if one != nil && !place.MatchString(one.Error()) {
				t.Errorf("%q: %q does not say where", raw, one)
			}
		}
		for name, s := range got {
			if !place.MatchString(s.place+": ") || err == nil && slices.Contains(s.values, "") && s.values[0] != "" {
				t.Errorf("%q: %s is %v", raw, name, s)
			}
		}
	})
}
