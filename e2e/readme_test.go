//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// followed are the pages whose commands are followed as they are written, in one go from the first to the last.
var followed = []string{"README.md"}

// ownCommands are those that .ci/run gives itself: a test that gave them would never end.
var ownCommands = regexp.MustCompile(`^make (demo|test|build|bench|chaos)\b`)

const (
	// stepTimeout is how long a command may take: some compile guests.
	stepTimeout = 2 * time.Minute
	// endless are commands that run until somebody ends them.
	endless = `wasmatrix agent|(logs|events) -f|wasmatrix top`
)

// Whoever has root, go and the binary gets through the pages word by word. Three hosts that have the addresses of the pages, and
// nothing of one another's, are namespaces.
func TestPagesCanBeFollowedWordByWord(t *testing.T) {
	for _, page := range followed {
		t.Run(page, func(t *testing.T) {
			steps := commandsOf(t, page)
			lan := newLAN(t, "host-5", "host-6", "host-7")
			for _, s := range steps {
				if ownCommands.MatchString(s.command) {
					continue
				}
				lan.follow(t, s)
			}
		})
	}
}

// step is one command of a page, to be given at a host; of none named, at the one before.
type step struct {
	host, command string
	line          int
}

var prompt = regexp.MustCompile(`^([a-z0-9-]*)\$ (.*)$`)

// commandsOf returns the commands behind prompts in the console blocks of a page.
func commandsOf(t *testing.T, page string) []step {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var steps []step
	console, host := false, "host-5"
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.HasPrefix(line, "```") {
			console = line == "```console"
			continue
		}
		m := prompt.FindStringSubmatch(line)
		switch {
		case !console:
		case m != nil:
			if m[1] != "" {
				host = m[1]
			}
			steps = append(steps, step{host: host, command: m[2], line: n})
		case len(steps) > 0 && strings.HasSuffix(steps[len(steps)-1].command, `\`):
			steps[len(steps)-1].command += "\n" + line
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(steps) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return steps
}

// lan is a few hosts on one wire, with a shell on each.
type lan map[string]*shell

// newLAN returns hosts at 10.0.0.N, where N is what the name ends with.
func newLAN(t *testing.T, hosts ...string) lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("hosts of their own take root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("hosts of their own take iproute2: %v", err)
	}
	dir := checkout(t)
	wire := fmt.Sprintf("wasmatrix-%d-wire", os.Getpid())
	namespace(t, wire)
	mustIP(t, "-n", wire, "link", "add", "wire", "type", "bridge")
	mustIP(t, "-n", wire, "link", "set", "wire", "up")
	l := lan{}
	for _, host := range hosts {
		name := fmt.Sprintf("wasmatrix-%d-%s", os.Getpid(), host)
		_, number, _ := strings.Cut(host, "-")
		namespace(t, name)
		mustIP(t, "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", host, "netns", wire)
		mustIP(t, "-n", wire, "link", "set", host, "master", "wire", "up")
		mustIP(t, "-n", name, "addr", "add", "10.0.0."+number+"/24", "dev", "eth0")
		mustIP(t, "-n", name, "link", "set", "eth0", "up")
		mustIP(t, "-n", name, "link", "set", "lo", "up")
		l[host] = newShell(t, name, host, dir)
	}
	return l
}

// follow gives a command where the page says.
func (l lan) follow(t *testing.T, s step) {
	t.Helper()
	sh := l[s.host]
	if sh == nil {
		t.Fatalf("line %d: there is no host %q", s.line, s.host)
	}
	t.Logf("%s$ %s", s.host, s.command)
	said, err := sh.run(s.command)
	if err != nil {
		t.Fatalf("line %d: %s: %v\n%s", s.line, s.command, err, said)
	}
}

func namespace(t *testing.T, name string) {
	t.Helper()
	mustIP(t, "netns", "add", name)
	t.Cleanup(func() { mustIP(t, "netns", "delete", name) })
}

func mustIP(t *testing.T, args ...string) {
	t.Helper()
	if said, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

// checkout returns a directory that looks like a fresh checkout, in which commands may leave what they make.
func checkout(t *testing.T) string {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	tracked, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Skipf("the pages are followed in a git checkout only: %v", err)
	}
	dir := t.TempDir()
	for file := range strings.SplitSeq(strings.TrimSuffix(string(tracked), "\x00"), "\x00") {
		to := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue // deleted, and not committed yet
		}
		if err := os.WriteFile(to, raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shell is a bash at one host, that takes one command after the other.
type shell struct {
	in      io.Writer
	answers chan string
	scratch string // where it keeps what endless commands say
	steps   int
}

// newShell logs in at a host: to an empty /var/lib, as on a machine on which nothing was installed, with the binary on the path.
func newShell(t *testing.T, namespace, host, dir string) *shell {
	t.Helper()
	sh := &shell{answers: make(chan string), scratch: t.TempDir()}
	cmd := exec.Command("ip", "netns", "exec", namespace, "bash", "--noprofile", "--norc")
	cmd.Dir = dir
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(product.Client, filepath.Join(bin, "wasmatrix")); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "WASMATRIX_NAME="+host, "GOFLAGS=-buildvcs=false")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sh.in = in
	read := make(chan struct{})
	go sh.read(out, read)
	t.Cleanup(func() {
		// All that was started there, the shell itself too.
		if said, err := exec.Command("sh", "-c", "ip netns pids "+namespace+" | xargs kill -KILL").CombinedOutput(); err != nil {
			t.Errorf("end what runs at %s: %v\n%s", host, err, said)
		}
		<-read
		_ = cmd.Wait() // it was killed
	})
	// As root one needs no sudo, and not every machine has it. What runs in the background is to be interrupted, so it has a group.
	if said, err := sh.run("set -m; mount -t tmpfs none /var/lib && sudo() { \"$@\"; }"); err != nil {
		t.Fatalf("log in at %s: %v\n%s", host, err, said)
	}
	return sh
}

const answered = "--- answered with "

// read hands on what comes between two marks, until the shell ends.
func (sh *shell) read(out io.Reader, done chan<- struct{}) {
	defer close(done)
	defer close(sh.answers)
	var said strings.Builder
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if before, code, ok := strings.Cut(line, answered); ok {
			sh.answers <- said.String() + before + answered + code
			said.Reset()
			continue
		}
		said.WriteString(line)
	}
}

// run gives a command and returns what it said. One that goes on until somebody ends it is ended when it has said something,
// but for an agent, which runs on.
func (sh *shell) run(command string) (said string, err error) {
	command = strings.Replace(command, " ID", ` "$(wasmatrix ps -o json | grep -m 1 -o '[0-9a-f-]\{36\}')"`, 1)
	if regexp.MustCompile(endless).MatchString(command) {
		command = sh.untilItSpeaks(command)
	}
	if _, err := io.WriteString(sh.in, command+"\necho \""+answered+"$?\"\n"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	select {
	case answer, ok := <-sh.answers:
		if !ok {
			return "", io.ErrUnexpectedEOF
		}
		said, code, _ := strings.Cut(answer, answered)
		if code = strings.TrimSpace(code); code != "0" {
			return said, fmt.Errorf("exit code %s", code)
		}
		return said, nil
	case <-ctx.Done():
		return "", fmt.Errorf("no answer after %s", stepTimeout)
	}
}

// untilItSpeaks has an endless command run until it says what it is run for: an agent that it is ready, others anything.
func (sh *shell) untilItSpeaks(command string) string {
	sh.steps++
	file := filepath.Join(sh.scratch, fmt.Sprint(sh.steps))
	speaks, end := "-s "+file, "kill -INT -- -$!; wait $! 2>/dev/null; "
	if strings.Contains(command, "wasmatrix agent") {
		speaks, end = "\"$(grep -c msg=ready "+file+")\" = 1", ""
	}
	return fmt.Sprintf(`{ %s
} >%s 2>&1 &
for i in $(seq 300); do [ %s ] && break; sleep 0.1; done; spoke=$?; %s cat %s; [ %s ]`, command, file, speaks, end, file, speaks)
}
