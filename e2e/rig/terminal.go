package rig

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// screenDeadline is how long a screen may take to show what is waited for, on a machine that does much else.
const screenDeadline = 30 * time.Second

// Terminal is a terminal with a program on it, as a person sees and uses it.
type Terminal struct {
	t      T
	keys   *os.File
	exited chan struct{}
	code   int // after exited

	// mu guards what is on the screen.
	mu     sync.Mutex
	screen *vt.Emulator
}

// OnTerminal starts a program on a terminal of that size. The program ends with the test.
func OnTerminal(t T, columns, rows int, cmd *exec.Cmd) *Terminal {
	t.Helper()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "TERM=xterm-256color", "NO_COLOR=", "CLICOLOR_FORCE=")
	keys, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)})
	if err != nil {
		t.Fatalf("start %s on a terminal: %v", cmd.Path, err)
	}
	x := &Terminal{t: t, keys: keys, exited: make(chan struct{}), screen: vt.NewEmulator(columns, rows)}
	answered := make(chan struct{})
	go func() { // what the program asks its terminal
		defer close(answered)
		_, _ = io.Copy(keys, x.screen)
	}()
	go func() {
		defer close(x.exited)
		_, _ = io.Copy(x, keys) // to the program's end, which is an error here
		_ = cmd.Wait()          // the exit code is asked for where it matters
		x.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-x.exited
		if pipe, ok := x.screen.InputPipe().(io.Closer); ok {
			_ = pipe.Close()
		}
		<-answered
		_ = keys.Close()
	})
	return x
}

// Write draws what the program prints.
func (x *Terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.Write(p)
}

// Type sends keys to the program.
func (x *Terminal) Type(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.keys, keys); err != nil {
		x.t.Fatalf("type %q: %v\n%s", keys, err, x.Screen())
	}
}

// Screen returns what is on the screen, without blanks at the ends of lines.
func (x *Terminal) Screen() string {
	x.mu.Lock()
	text := ansi.Strip(x.screen.Render())
	x.mu.Unlock()
	lines := strings.Split(strings.ReplaceAll(text, "\r", ""), "\n")
	for n := range lines {
		lines[n] = strings.TrimRight(lines[n], " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// Shows waits until a text is on the screen.
func (x *Terminal) Shows(text string) {
	x.t.Helper()
	x.Until("it shows "+text, func(screen string) bool { return strings.Contains(screen, text) })
}

// Until waits until the screen is as it should be.
func (x *Terminal) Until(what string, holds func(screen string) bool) {
	x.t.Helper()
	Wait(x.t, what, screenDeadline, func() error {
		if screen := x.Screen(); !holds(screen) {
			return fmt.Errorf("the screen shows\n%s", screen)
		}
		return nil
	})
}

// Exited waits until the program has ended, and returns its exit code.
func (x *Terminal) Exited() int {
	x.t.Helper()
	select {
	case <-x.exited:
		return x.code
	case <-time.After(screenDeadline):
		x.t.Fatalf("the program runs on after %s; the screen shows\n%s", screenDeadline, x.Screen())
		return 0
	}
}
