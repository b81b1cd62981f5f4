package deploy

import (
	"bytes"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var dist = flag.String("dist", "", "look at the release in this `DIR`, which `make package` makes")

func TestInstallScriptInstallsWhatItSaysAndNothingElse(t *testing.T) {
	archive := released(t, "wasmatrix_*_linux_amd64.tar.gz")
	root := t.TempDir()
	said := install(t, root, "--systemd", archive)
	if !strings.Contains(said, "is installed as /usr/local/bin/wasmatrix") {
		t.Errorf("it said %q", said)
	}
	want := []string{
		"etc/systemd/system/wasmatrix.service",
		"etc/wasmatrix/wasmatrix.yaml",
		"usr/local/bin/wasmatrix",
		"usr/local/share/bash-completion/completions/wasmatrix",
		"usr/local/share/doc/wasmatrix/CHANGELOG.md",
		"usr/local/share/doc/wasmatrix/LICENSE",
		"usr/local/share/doc/wasmatrix/README.md",
		"usr/local/share/fish/vendor_completions.d/wasmatrix.fish",
		"usr/local/share/man/man1/wasmatrix-*.1",
		"usr/local/share/man/man1/wasmatrix.1",
		"usr/local/share/wasmatrix/installed",
		"usr/local/share/zsh/site-functions/_wasmatrix",
	}
	if got := tree(t, root); !slices.Equal(got, want) {
		t.Errorf("there are now\n%s", strings.Join(got, "\n"))
	}
	if unit := read(t, filepath.Join(root, "etc/systemd/system/wasmatrix.service")); !strings.Contains(unit, "\nExecStart=/usr/local/bin/wasmatrix agent") {
		t.Errorf("the unit starts another binary:\n%s", unit)
	}
	runs(t, filepath.Join(root, "usr/local/bin/wasmatrix"))

	// An upgrade keeps what the operator wrote, and takes away what the new version no longer has.
	write(t, filepath.Join(root, "etc/wasmatrix/wasmatrix.yaml"), "voters: 5\n")
	manifest := filepath.Join(root, "usr/local/share/wasmatrix/installed")
	write(t, manifest, read(t, manifest)+"/usr/local/share/doc/wasmatrix/OLD\n")
	write(t, filepath.Join(root, "usr/local/share/doc/wasmatrix/OLD"), "of the version before")
	before := fileID(t, filepath.Join(root, "usr/local/bin/wasmatrix"))
	install(t, root, archive) // it knows that there is a unit
	if got := tree(t, root); !slices.Equal(got, want) {
		t.Errorf("after an upgrade there are\n%s", strings.Join(got, "\n"))
	}
	if config := read(t, filepath.Join(root, "etc/wasmatrix/wasmatrix.yaml")); config != "voters: 5\n" {
		t.Errorf("after an upgrade the configuration is %q", config)
	}
	if os.SameFile(before, fileID(t, filepath.Join(root, "usr/local/bin/wasmatrix"))) {
		t.Error("the binary of the version before was written over, while a node may run it")
	}

	install(t, root, "--uninstall")
	if got := tree(t, root); !slices.Equal(got, []string{"etc/wasmatrix/wasmatrix.yaml"}) {
		t.Errorf("after an uninstallation there are\n%s", strings.Join(got, "\n"))
	}
}

func TestInstallScriptDownloadsAndChecks(t *testing.T) {
	archive := released(t, "wasmatrix_*_linux_amd64.tar.gz")
	if _, err := exec.LookPath("curl"); err != nil {
		program(t, "wget")
	}
	version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(archive), "wasmatrix_"), "_linux_amd64.tar.gz")
	releases := http.NewServeMux()
	releases.Handle("/v"+version+"/", http.StripPrefix("/v"+version+"/", http.FileServer(http.Dir(*dist))))
	server := httptest.NewServer(releases)
	defer server.Close()
	root := t.TempDir()
	install(t, root, "--from", server.URL, "--prefix", "/opt/wasmatrix", version)
	runs(t, filepath.Join(root, "opt/wasmatrix/bin/wasmatrix"))

	other := filepath.Join(t.TempDir(), filepath.Base(archive))
	write(t, other, read(t, archive)+"!")
	checksums := filepath.Join(*dist, "checksums.txt")
	for name, args := range map[string][]string{
		"is not what was released": {"--checksums", checksums, other},
		"to check the archive by":  {other},
		"could not download":       {"--from", server.URL, "9.9.9"},
		"neither a file":           {"newest"},
		"want an absolute path":    {"--prefix", "here", archive},
		"nothing was installed":    {"--uninstall"},
	} {
		root := t.TempDir()
		said, err := script(root, args...)
		if err == nil || !strings.Contains(said, name) {
			t.Errorf("%v: %v, and it said %q", args, err, said)
		}
		if got := tree(t, root); len(got) > 0 {
			t.Errorf("%v left %v", args, got)
		}
	}
}

func TestShellScriptsAreClean(t *testing.T) {
	shellcheck := program(t, "shellcheck")
	scripts := []string{"../scripts/install.sh", "../e2e/testdata/systemd.sh"}
	for _, file := range files(t) {
		if filepath.Ext(file) == ".sh" {
			scripts = append(scripts, file)
		}
	}
	if said, err := exec.Command(shellcheck, scripts...).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, said)
	}
}

func TestDebianPackageInstallsUpgradesAndKeepsDataUntilPurged(t *testing.T) {
	dpkg := program(t, "dpkg")
	deb := released(t, "wasmatrix_*_amd64.deb")
	if os.Geteuid() != 0 {
		t.Skip("dpkg installs for root only: the package was not installed")
	}
	root := t.TempDir()
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "")
	do := func(args ...string) string {
		t.Helper()
		// Its scripts find the root by themselves, so that there need not be a shell in it.
		cmd := exec.Command(dpkg, append([]string{"--root=" + root, "--force-script-chrootless"}, args...)...)
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg %v: %v\n%s", args, err, said)
		}
		return string(said)
	}
	installed := func() []string {
		return slices.DeleteFunc(tree(t, root), func(path string) bool { return strings.HasPrefix(path, "var/lib/dpkg/") || path == "var/log/dpkg.log" })
	}
	if said := do("--install", deb); !strings.Contains(said, "systemctl enable --now wasmatrix") {
		t.Errorf("it does not say what to do next:\n%s", said)
	}
	want := []string{
		"etc/wasmatrix/wasmatrix.yaml",
		"usr/bin/wasmatrix",
		"usr/lib/systemd/system/wasmatrix.service",
		"usr/share/bash-completion/completions/wasmatrix",
		"usr/share/doc/wasmatrix/CHANGELOG.md",
		"usr/share/doc/wasmatrix/copyright",
		"usr/share/fish/vendor_completions.d/wasmatrix.fish",
		"usr/share/man/man1/wasmatrix-*.1",
		"usr/share/man/man1/wasmatrix.1",
		"usr/share/zsh/vendor-completions/_wasmatrix",
	}
	if got := installed(); !slices.Equal(got, want) {
		t.Errorf("there are now\n%s", strings.Join(got, "\n"))
	}
	runs(t, filepath.Join(root, "usr/bin/wasmatrix"))

	config := filepath.Join(root, "etc/wasmatrix/wasmatrix.yaml")
	write(t, config, "voters: 5\n")
	data := filepath.Join(root, "var/lib/private/wasmatrix/node-id")
	write(t, data, "who I am")
	if said := do("--install", deb); strings.Contains(said, "enable") {
		t.Errorf("an upgrade tells how to begin:\n%s", said)
	}
	if got := read(t, config); got != "voters: 5\n" {
		t.Errorf("after an upgrade the configuration is %q", got)
	}
	do("--remove", "wasmatrix")
	if got := installed(); !slices.Equal(got, []string{"etc/wasmatrix/wasmatrix.yaml", "var/lib/private/wasmatrix/node-id"}) {
		t.Errorf("after its removal there are\n%s", strings.Join(got, "\n"))
	}
	do("--purge", "wasmatrix")
	if got := installed(); len(got) > 0 {
		t.Errorf("after a purge there are\n%s", strings.Join(got, "\n"))
	}
}

func TestConfigurationsThatAreDeployedAreRight(t *testing.T) {
	archive := released(t, "wasmatrix_*_linux_amd64.tar.gz")
	binary := filepath.Join(t.TempDir(), "wasmatrix")
	unpack(t, archive, binary)
	var data struct {
		WriteFiles []struct{ Content string } `yaml:"write_files"`
	}
	parseYAML(t, "cloud-init/user-data.yaml", &data)
	fromCloudInit := filepath.Join(t.TempDir(), "wasmatrix.yaml")
	write(t, fromCloudInit, data.WriteFiles[0].Content)
	for _, file := range []string{"wasmatrix.yaml", fromCloudInit} {
		if said, err := exec.Command(binary, "agent", "--config", file, "--advertise", "10.0.0.7", "--check-config").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, said)
		}
	}
}

func TestReleaseHasASBOMAndChecksums(t *testing.T) {
	sums := read(t, filepath.Join(filepath.Dir(released(t, "checksums.txt")), "checksums.txt"))
	for _, pattern := range []string{"*_linux_amd64.tar.gz", "*_amd64.deb", "*.x86_64.rpm", "*_linux_amd64.cdx.json"} {
		if name := filepath.Base(released(t, pattern)); !strings.Contains(sums, "  "+name+"\n") {
			t.Errorf("checksums.txt has no %s", name)
		}
	}
	if sbom := read(t, released(t, "*_linux_amd64.cdx.json")); !strings.Contains(sbom, `"pkg:golang/github.com/tetratelabs/wazero@`) {
		t.Error("the SBOM does not name wazero")
	}
}

// released returns a file of the release.
func released(t *testing.T, pattern string) string {
	t.Helper()
	if *dist == "" {
		t.Skip("no -dist: make package makes a release and looks at it")
	}
	found, err := filepath.Glob(filepath.Join(*dist, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %v, %v", pattern, *dist, found, err)
	}
	return found[0]
}

// install runs the script that installs, with everything below root.
func install(t *testing.T, root string, args ...string) string {
	t.Helper()
	said, err := script(root, args...)
	if err != nil {
		t.Fatalf("install.sh %v: %v\n%s", args, err, said)
	}
	return said
}

func script(root string, args ...string) (string, error) {
	cmd := exec.Command("sh", append([]string{"../scripts/install.sh"}, args...)...)
	cmd.Env = append(os.Environ(), "DESTDIR="+root)
	said, err := cmd.CombinedOutput()
	return string(said), err
}

func runs(t *testing.T, binary string) {
	t.Helper()
	said, err := exec.Command(binary, "version").CombinedOutput()
	if err != nil || !bytes.HasPrefix(said, []byte("wasmatrix v")) {
		t.Errorf("%s version: %v, %q", binary, err, said)
	}
}

// page is the manual page of one command: there is one for each.
var page = regexp.MustCompile(`/man1/wasmatrix-[a-z]+\.1$`)

// tree returns the files below a directory; the manual pages of commands are one entry.
func tree(t *testing.T, root string) []string {
	t.Helper()
	all := []string{}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		path, err = filepath.Rel(root, page.ReplaceAllString(path, "/man1/wasmatrix-*.1"))
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Compact(all)
}

func fileID(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
