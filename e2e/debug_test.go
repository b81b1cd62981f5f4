package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// debugged is what operator debug prints.
type debugged struct {
	File   string   `json:"file"`
	Nodes  []string `json:"nodes"`
	Errors []string `json:"errors"`
}

// unpack returns the files of a bundle, without its own directory.
func unpack(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(zipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		files[name] = content
	}
}

// A bug report has all that its README says of each node that answers, names the node that does not, and has no secret.
func TestDebugBundleIsWholeAndHasNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "pl4nted"
	dir := t.TempDir()
	passwordFile := filepath.Join(dir, "password")
	if err := os.WriteFile(passwordFile, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	c := product.Form(t, 3, "--label", "home=http://me:"+secret+"@nowhere", "--etcd-endpoints", "127.0.0.1:1", "--etcd-user", "me", "--etcd-password-file", passwordFile,
		"--event-webhook", "http://127.0.0.1:1/"+secret)
	leader := c.Leader()
	leader.Run("--name", "guest", "--count", "3", "--env", "TOKEN="+secret, actor(t), "--", "say", secret, "forever")
	leader.CLI("provider", "start", "kv", "--id", "cache", "--backend", "redis://me:"+secret+"@127.0.0.1:1") // refused or failing, and logged
	dead := c.Followers()[0]
	dead.Kill()

	path := filepath.Join(dir, "report.tar.gz")
	var made debugged
	leader.JSON(&made, "operator", "debug", "--all", "--duration", "1s", "--file", path)
	if len(made.Nodes) != 2 || slices.Contains(made.Nodes, dead.Name) || made.File != path {
		t.Errorf("made %+v", made)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want only the owner to read it", info.Mode(), err)
	}
	files := unpack(t, path)
	if !strings.Contains(string(files["errors.txt"]), "node "+dead.Name+": ") {
		t.Errorf("errors.txt does not name %s:\n%s", dead.Name, files["errors.txt"])
	}
	directory := ""
	for _, m := range regexp.MustCompile(`(?m)^(\S+/| {2}\S+) {2,}`).FindAllStringSubmatch(string(files["README.txt"]), -1) {
		file := strings.TrimSpace(m[1])
		if strings.HasSuffix(file, "/") {
			directory = file
			continue
		}
		for _, node := range made.Nodes {
			path := strings.Replace(directory, "NAME", node, 1) + file
			if content, there := files[path]; there != (file != "guest-output.txt") || there && len(content) == 0 {
				t.Errorf("%s: %d bytes", path, len(content))
			}
		}
	}
	if directory != "nodes/NAME/" {
		t.Errorf("README.txt ends with the files of %q:\n%s", directory, files["README.txt"])
	}
	for path, content := range files {
		if strings.HasSuffix(path, ".pprof") {
			if p, err := profile.ParseData(content); err != nil {
				t.Errorf("%s: %v", path, err)
			} else {
				content = []byte(p.String())
			}
		}
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("%s has the secret:\n%s", path, content)
		}
	}
	for path, want := range map[string]string{
		"cluster/instances.json": `"guest"`, "log.txt": "msg=", "metrics.txt": "wasmatrix_raft_is_leader", "raft.txt": "latest_configuration",
		"settings.txt": "etcd-password-file", "host.txt": "bytes and", "goroutines.txt": "goroutine profile", "stacks.txt": "goroutine ", "build.txt": "go.etcd.io/bbolt",
	} {
		if !strings.Contains(path, "/") {
			path = "nodes/" + leader.Name + "/" + path
		}
		if !bytes.Contains(files[path], []byte(want)) {
			t.Errorf("%s has no %q:\n%.2000s", path, want, files[path])
		}
	}

	leader.JSON(&made, "operator", "debug", "--duration", "0s", "--with-guest-data", "--file", path)
	files = unpack(t, path)
	for _, file := range []string{"instances.json", "guest-output.txt"} {
		if !bytes.Contains(files["nodes/"+leader.Name+"/"+file], []byte(secret)) {
			t.Errorf("%s lacks what was asked for:\n%s", file, files["nodes/"+leader.Name+"/"+file])
		}
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNodeCollectsForOneBugReportAtATime(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1)
	n := c.Any()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := n.Command(ctx, "operator", "debug", "--duration", "1m", "--file", filepath.Join(dir, "first.tar.gz"))
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	rig.Wait(t, "the first to be under way", 20*time.Second, func() error { return logHas(n, "collecting for a bug report") })
	second := filepath.Join(dir, "second.tar.gz")
	if r := n.CLI("operator", "debug", "--duration", "0s", "--file", second); r.Code != 1 || r.Reported().Code != "RESOURCE_EXHAUSTED" {
		t.Errorf("the second: exit code %d, %s", r.Code, r.Stderr)
	}
	if left, err := filepath.Glob(second + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	cancel()
	_ = first.Wait() // it was killed
	rig.Wait(t, "the node to be free again", 20*time.Second, func() error {
		return n.CLI("operator", "debug", "--duration", "0s", "--file", second).Err()
	})
}

func logHas(n *rig.Node, words ...string) error {
	for line := range strings.Lines(n.Log()) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			return nil
		}
	}
	return fmt.Errorf("no line of its log has %q", words)
}
