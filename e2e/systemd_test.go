package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watchdogEvery is how often systemd would want to hear from the node, as WATCHDOG_USEC says it.
const watchdogEvery = 3 * time.Second

func TestSystemdHearsOfJoiningReadinessWorkAndLeaving(t *testing.T) {
	t.Parallel()
	systemd := listenAsSystemd(t)
	c := product.New(t)
	first, second := c.Node("n1"), c.Node("n2")
	second.Env = systemd.env()

	second.Start("--join", first.IP)
	// It works, but has not joined: it asks for more time, more than once.
	for range 2 {
		if before := systemd.wait("EXTEND_TIMEOUT_USEC="); strings.Contains(before, "READY=1") {
			t.Fatalf("ready before there was anything to join: %q", before)
		}
	}
	systemd.wait("STATUS=joining through " + first.IP)

	first.Start()
	systemd.wait("READY=1")
	if state := first.Members()["n2"].State; state != "alive" {
		t.Errorf("n2 said that it was ready, and n1 says that n2 is %q", state)
	}
	systemd.wait("WATCHDOG=1")
	systemd.wait("STATUS=n1 leads; nodes alive: 2; instances here: 0")

	// What is stopped in its tracks can't say that it works.
	second.Pause()
	if heard := systemd.untilSilence(2 * watchdogEvery / 3); strings.Contains(heard, "STOPPING=1") {
		t.Errorf("a stopped process was heard saying %q", heard)
	}
	second.Continue()
	systemd.wait("WATCHDOG=1")

	second.Signal(syscall.SIGTERM)
	if last := systemd.wait("STOPPING=1"); !strings.Contains(last, "EXTEND_TIMEOUT_USEC=45000000") {
		t.Errorf("leaving may take 30 s and a little, and systemd heard %q", last)
	}
	if code := second.WaitExit(40 * time.Second); code != 0 {
		t.Errorf("left with exit code %d", code)
	}
}

func TestSystemdHearsWhyANodeEnds(t *testing.T) {
	t.Parallel()
	systemd := listenAsSystemd(t)
	c := product.Form(t, 1)
	namesake := c.Node("other")
	namesake.Env = systemd.env()
	namesake.Start("--join", c.Get("n1").IP, "--name", "n1")
	systemd.wait(`node "n1" is already in the cluster`)
	if code := namesake.WaitExit(20 * time.Second); code != 1 {
		t.Errorf("refused with exit code %d", code)
	}
}

// systemd is the end of the socket at which it listens to a service.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func listenAsSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// env is what systemd tells a service of itself.
func (s *systemd) env() []string {
	return []string{"NOTIFY_SOCKET=" + s.path, fmt.Sprintf("WATCHDOG_USEC=%d", watchdogEvery.Microseconds())}
}

// wait returns what was said until a message had that in it, that message included.
func (s *systemd) wait(what string) string {
	s.t.Helper()
	heard := ""
	for !strings.Contains(heard, what) {
		message, err := s.next(30 * time.Second)
		if err != nil {
			s.t.Fatalf("waited for %q: %v; heard before: %q", what, err, heard)
		}
		heard += message + "\n"
	}
	return heard
}

// untilSilence returns what was said before nothing was for that long.
func (s *systemd) untilSilence(length time.Duration) string {
	s.t.Helper()
	heard := ""
	for {
		message, err := s.next(length)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return heard
		}
		if err != nil {
			s.t.Fatal(err)
		}
		heard += message + "\n"
	}
}

// untilNow passes over what was said already.
func (s *systemd) untilNow() { s.untilSilence(time.Millisecond) }

func (s *systemd) next(within time.Duration) (string, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	raw := make([]byte, 4096)
	n, err := s.conn.Read(raw)
	return string(raw[:n]), err
}
