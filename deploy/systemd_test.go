package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const unitFile = "systemd/wasmatrix.service"

// exposure is the most that systemd-analyze may hold against the unit, of 10: what it has now. docs/install.md names what is left.
const exposure = 1.1

func TestSystemdTakesTheUnit(t *testing.T) {
	analyze := program(t, "systemd-analyze")
	// It looks whether the binary is there. Any program will do.
	unit := filepath.Join(t.TempDir(), "wasmatrix.service")
	installed := strings.ReplaceAll(read(t, unitFile), "/usr/bin/wasmatrix", executable(t))
	if err := os.WriteFile(unit, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
}

func TestUnitIsAsHardAsRecorded(t *testing.T) {
	analyze := program(t, "systemd-analyze")
	said, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", unitFile).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, said)
	}
	m := regexp.MustCompile(`Overall exposure level for wasmatrix\.service: ([0-9.]+)`).FindSubmatch(said)
	if m == nil {
		t.Fatalf("systemd-analyze names no exposure level:\n%s", said)
	}
	level, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	if level > exposure {
		t.Errorf("the exposure is %v and was %v:\n%s", level, exposure, said)
	}
	if want := "**" + strconv.FormatFloat(exposure, 'f', 1, 64) + "**"; !strings.Contains(read(t, "../docs/install.md"), want) {
		t.Errorf("docs/install.md does not name the exposure as %s", want)
	}
}

// What a file tells the binary, it must know.
func TestDeploymentsUseFlagsThatThereAre(t *testing.T) {
	reference := read(t, "../docs/cli.md")
	variable := regexp.MustCompile(`WASMATRIX_[A-Z_]+`)
	flag := regexp.MustCompile(`wasmatrix agent((?: --[a-z-]+(?:[= ][^-\s]\S*)?)+)`)
	for _, file := range files(t) {
		content := read(t, file)
		for _, name := range variable.FindAllString(content, -1) {
			if !strings.Contains(reference, name) {
				t.Errorf("%s sets %s, which docs/cli.md does not have", file, name)
			}
		}
		for _, m := range flag.FindAllStringSubmatch(content, -1) {
			for _, name := range regexp.MustCompile(`--[a-z-]+`).FindAllString(m[1], -1) {
				if !strings.Contains(reference, name) {
					t.Errorf("%s uses %s, which docs/cli.md does not have", file, name)
				}
			}
		}
	}
}

// files returns all that is deployed with, but the tests themselves.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) != ".go" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// program returns the path of a program that some machines have. On others the test is left out.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s on this machine: this was not looked at", name)
	}
	return path
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
