package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// image is what the last stage of a Dockerfile says.
type image struct {
	copies      [][2]string // from the stage before, to
	env         []string
	user        string
	entrypoint  []string
	healthcheck []string
}

func TestBothDockerfilesMakeTheSameImage(t *testing.T) {
	source, release := lastStage(t, "container/Dockerfile"), lastStage(t, "container/Dockerfile.release")
	if source != release {
		t.Errorf("built from source it is\n%s\nfrom a release\n%s", source, release)
	}
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))[1]
	if content := read(t, "container/Dockerfile"); !strings.Contains(content, "FROM golang:"+want+" AS build") {
		t.Errorf("the Dockerfile does not build with Go %s, which go.mod wants", want)
	}
}

// There is no container engine here, but what one would run can be had without: the files that the Dockerfile copies, as root
// directory of a process of that user with that environment. There is even less than in a container: no /proc, no /dev, no /etc/hosts.
func TestImageFromScratchHasAllThatANodeNeeds(t *testing.T) {
	archive := released(t, "wasmatrix_*_linux_amd64.tar.gz")
	if os.Geteuid() != 0 {
		t.Skip("only root changes the root directory: the image was not tried")
	}
	built := parseImage(t, lastStage(t, "container/Dockerfile"))
	root := t.TempDir()
	var uid, gid uint32
	if _, err := fmt.Sscanf(built.user, "%d:%d", &uid, &gid); err != nil || uid == 0 {
		t.Fatalf("USER %q is to be two numbers, and not root's", built.user)
	}
	for _, c := range built.copies {
		to := filepath.Join(root, c[1])
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		switch c[0] {
		case "/image/wasmatrix":
			unpack(t, archive, to)
		case "/image/data":
			if err := errors.Join(os.Mkdir(to, 0o700), os.Chown(to, int(uid), int(gid))); err != nil {
				t.Fatal(err)
			}
		case "/etc/ssl/certs/ca-certificates.crt": // the node starts without, too; only https needs them
		default:
			t.Errorf("COPY of %s: this test does not know where to take it from", c[0])
		}
	}
	ip := fmt.Sprintf("127.%d.77.1", 64+os.Getpid()%128)
	in := func(ctx context.Context, words ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir = "/"
		cmd.Env = append(slices.Clone(built.env), "WASMATRIX_BIND="+ip, "WASMATRIX_ADDR="+ip+":7401")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		return cmd
	}
	node := in(t.Context(), append(built.entrypoint, "agent", "--name", "scratch")...)
	var log strings.Builder
	node.Stdout, node.Stderr = &log, &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- node.Wait() }()
	defer func() {
		_ = node.Process.Kill()
		if t.Failed() {
			t.Logf("the node said:\n%s", log.String())
		}
	}()
	rig.Wait(t, "the HEALTHCHECK to succeed", 30*time.Second, func() error {
		said, err := in(t.Context(), built.healthcheck...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	})
	// A guest needs a compiler's cache, the journal and the module store.
	module := filepath.Join(root, "guest.wasm")
	write(t, module, read(t, guest.Actor(t)))
	if err := os.Chmod(module, 0o644); err != nil {
		t.Fatal(err)
	}
	if said, err := in(t.Context(), "/wasmatrix", "run", "--timeout", "30s", "/guest.wasm", "--", "forever").CombinedOutput(); err != nil {
		t.Errorf("run: %v\n%s", err, said)
	}
	if err := node.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("told to stop, it ended with %v", err)
	}
}

// lastStage returns what makes the image itself.
func lastStage(t *testing.T, file string) string {
	t.Helper()
	content := read(t, file)
	_, stage, found := strings.Cut(content, "\nFROM scratch\n")
	if !found || len(regexp.MustCompile(`(?m)^FROM `).FindAllString(content, -1)) != 2 {
		t.Fatalf("%s is to have two stages, the last one from scratch", file)
	}
	return stage
}

func parseImage(t *testing.T, stage string) image {
	t.Helper()
	var i image
	for line := range strings.Lines(stage) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "COPY":
			words := slices.DeleteFunc(strings.Fields(rest), func(w string) bool { return strings.HasPrefix(w, "--") })
			i.copies = append(i.copies, [2]string{words[0], words[1]})
		case "ENV":
			i.env = append(i.env, rest)
		case "USER":
			i.user = rest
		case "ENTRYPOINT":
			i.entrypoint = execForm(t, rest)
		case "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, "CMD ")
			i.healthcheck = execForm(t, command)
		case "", "#", "VOLUME", "EXPOSE", "STOPSIGNAL", "CMD":
		default:
			t.Errorf("an image from scratch has no %s", line)
		}
	}
	return i
}

// execForm reads a command without a shell.
func execForm(t *testing.T, raw string) []string {
	t.Helper()
	var words []string
	if err := json.Unmarshal([]byte(raw), &words); err != nil || len(words) == 0 {
		t.Fatalf("%q needs a shell, and there is none: %v", raw, err)
	}
	return words
}

// unpack writes the binary of an archive.
func unpack(t *testing.T, archive, to string) {
	t.Helper()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-xzOf", archive, strings.TrimSuffix(filepath.Base(archive), ".tar.gz")+"/wasmatrix")
	cmd.Stdout = out
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatal(err)
	}
}
