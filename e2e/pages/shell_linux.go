package pages

import (
	"bufio"
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

const (
	// patience is how long a command may take: some compile guests.
	patience = 2 * time.Minute
	// answered marks the end of what a command said.
	answered = "--- answered with "
)

// endless is what runs until somebody ends it.
var endless = regexp.MustCompile(`^(sudo )?wasmatrix (agent|top|(logs|events) -f)`)

// anID stands for the id of an instance, wherever a page has no id that it could know.
const anID = ` "$(wasmatrix ps -o json | grep -m 1 -o '[0-9a-f-]\{36\}')"`

// shell is a bash at one host, which takes one command after the other.
type shell struct {
	in      io.Writer
	answers chan string
	scratch string // where it keeps what endless commands say
	started int    // how many of these
}

// login starts a shell at a host.
func login(t *testing.T, namespace, host, dir, bin string) *shell {
	t.Helper()
	sh := &shell{answers: make(chan string), scratch: t.TempDir()}
	cmd := exec.Command("ip", "netns", "exec", namespace, "unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "--noprofile", "--norc")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOFLAGS=-buildvcs=false") // dir is no checkout of git's
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	sh.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go sh.read(out, read)
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil { // and with it all that was started there
			t.Errorf("end what runs at %s: %v", host, err)
		}
		_ = cmd.Wait() // it was killed
		_ = w.Close()  // never fails
		<-read
	})
	// What runs in the background has a group, so that it can be interrupted. As root one needs no sudo, and not every machine has it.
	if said, err := sh.run(`set -m; mount -t tmpfs none /var/lib && hostname ` + host + ` && sudo() { "$@"; }`); err != nil {
		t.Fatalf("log in at %s: %v\n%s", host, err, said)
	}
	return sh
}

// read hands on what comes before each mark, the mark included, until the shell ends.
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
		said.WriteString(line)
		if strings.Contains(line, answered) {
			sh.answers <- said.String()
			said.Reset()
		}
	}
}

// follow gives a command as a page has it, and returns what it said.
func (sh *shell) follow(t *testing.T, s step) (said string, err error) {
	t.Helper()
	command := strings.Replace(s.command, " ID", anID, 1)
	if endless.MatchString(command) {
		return sh.untilItSays(t, command, s)
	}
	said, err = sh.run(command)
	if err == nil {
		if lacks := s.missing(said); lacks != "" {
			err = fmt.Errorf("it did not say: %s", lacks)
		}
	}
	return said, err
}

// run gives a command and returns what it said.
func (sh *shell) run(command string) (said string, err error) {
	if _, err := io.WriteString(sh.in, command+"\necho \""+answered+"$?\"\n"); err != nil {
		return "", err
	}
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
	case <-time.After(patience):
		return "", fmt.Errorf("no answer after %s", patience)
	}
}

// untilItSays runs an endless command until it says what it should. One that has ended by then was not endless, but wrong.
func (sh *shell) untilItSays(t *testing.T, command string, s step) (said string, err error) {
	t.Helper()
	file := filepath.Join(sh.scratch, fmt.Sprint(sh.started))
	sh.started++
	if said, err := sh.run("{ " + command + "\n} >" + file + " 2>&1 &"); err != nil {
		return said, err
	}
	if strings.Contains(command, " agent ") && len(s.says) == 0 {
		s.says = []string{"msg=ready"}
	}
	lacks := "anything"
	rig.Wait(t, fmt.Sprintf("%q to say what the page says", s.command), patience, func() error {
		raw, err := os.ReadFile(file)
		if said = string(raw); said != "" {
			lacks = s.missing(said)
		}
		if _, ended := sh.run("kill -0 -- -$!"); ended != nil {
			t.Fatalf("%s: it has ended: %s", s.command, said)
		}
		if err == nil && lacks != "" {
			err = fmt.Errorf("it did not say: %s", lacks)
		}
		return err
	})
	if strings.Contains(command, " agent ") {
		return said, nil
	}
	_, err = sh.run("kill -INT -- -$! && { wait $!; s=$?; [ $s -eq 0 ] || [ $s -gt 128 ]; } 2>/dev/null")
	return said, err
}
