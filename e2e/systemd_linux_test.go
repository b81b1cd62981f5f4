package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// The unit as it is, with all that it keeps from a node, under a real systemd.
func TestSystemdRunsTheUnit(t *testing.T) {
	t.Parallel()
	host := bootSystemd(t)

	host.must("systemctl", "start", "wasmatrix") // returns once the node has joined
	if said := host.must("wasmatrix", "members", "-o", "json"); !strings.Contains(said, `"state": "alive"`) {
		t.Errorf("systemd says that the node is ready, and it says\n%s", said)
	}
	host.must("wasmatrix", "run", "--name", "steady", "--timeout", "30s", "--restart", "always", "/var/lib/given/guest.wasm", "--", "forever")
	rig.Wait(t, "a status line", 20*time.Second, func() error {
		return rig.Want("it", host.property("StatusText"), "n1 leads; nodes alive: 1; instances here: 1")
	})

	host.must("sh", "-c", "echo votters: 3 >>/etc/wasmatrix/wasmatrix.yaml")
	if said, err := host.run("systemctl", "reload", "wasmatrix"); err == nil {
		t.Errorf("a wrong file was taken: %s", said)
	}
	host.must("sed", "-i", "s/votters: 3/log-level: debug/", "/etc/wasmatrix/wasmatrix.yaml")
	host.must("systemctl", "reload", "wasmatrix")

	first := host.property("MainPID")
	host.must("systemctl", "kill", "--signal=STOP", "wasmatrix")
	rig.Wait(t, "the watchdog to end a node that hangs, and another to start", 30*time.Second, func() error {
		if now := host.property("MainPID"); now == first || now == "0" {
			return fmt.Errorf("the process is still %s", now)
		}
		return rig.Want("the unit's state", host.property("ActiveState"), "active")
	})
	rig.Wait(t, "what ran to run again", 20*time.Second, func() error {
		said, err := host.run("wasmatrix", "ps", "-o", "json", "--name", "steady")
		if err == nil && !strings.Contains(said, `"status": "running"`) {
			err = errors.New(said)
		}
		return err
	})

	host.must("systemctl", "stop", "wasmatrix")
	if result, state := host.property("Result"), host.property("ActiveState"); result != "success" || state != "inactive" {
		t.Errorf("stopped, it is %s: %s", state, result)
	}
}

// systemdHost is a systemd in namespaces of its own.
type systemdHost struct {
	t   *testing.T
	pid int
}

func bootSystemd(t *testing.T) systemdHost {
	t.Helper()
	mount, err := cgroupMount()
	if err == nil {
		err = exec.Command("unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--mount-proc", "true").Run()
	}
	if err == nil {
		_, err = os.Stat("/lib/systemd/systemd")
	}
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("a systemd of its own takes root, namespaces and a systemd: the unit did not run: %v", err)
	}
	group, err := os.MkdirTemp(mount, "wasmatrix-test-") //nolint:usetesting // a control group is no temporary directory
	if errors.Is(err, fs.ErrPermission) || err != nil && strings.Contains(err.Error(), "read-only") {
		t.Skipf("a systemd of its own takes a control group: the unit did not run: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	unit := readFile(t, filepath.Join(root, "deploy", "systemd", "wasmatrix.service"))
	for name, content := range map[string][]byte{
		"wasmatrix":      readFile(t, product.Client),
		"wasmatrix.yaml": []byte("name: n1\n"),
		"guest.wasm":     readFile(t, actor(t)),
		// The only change: nobody wants to wait for a minute.
		"wasmatrix.service": bytes.ReplaceAll(unit, []byte("WatchdogSec=60s"), []byte("WatchdogSec=2s")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	cmd := exec.Command("sh", "testdata/systemd.sh", group, dir)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it ends with the test, however that ends
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := systemdHost{t: t}
	t.Cleanup(func() {
		if t.Failed() && h.pid > 0 {
			console, _ := h.run("cat", "/run/console")
			status, _ := h.run("systemctl", "--no-pager", "status", "wasmatrix")
			t.Logf("systemd said:\n%s\n%s", console, status)
		}
		_ = cmd.Process.Kill() // all that is in its namespaces ends with it
		_ = cmd.Wait()
		rig.Wait(t, "its control groups to be empty", 20*time.Second, func() error { return removeGroups(group) })
	})
	rig.Wait(t, "systemd to run", 20*time.Second, func() error {
		// unshare's only child is the first process there.
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return fmt.Errorf("%w: %s", err, said.String())
		}
		if h.pid, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
			return err
		}
		state, err := h.run("systemctl", "is-system-running")
		if state = strings.TrimSpace(state); state != "running" {
			return fmt.Errorf("it is %q: %w", state, err)
		}
		return nil
	})
	return h
}

// run runs a command there.
func (h systemdHost) run(words ...string) (string, error) {
	enter := []string{"-t", strconv.Itoa(h.pid), "-m", "-u", "-i", "-n", "-p", "-C", "timeout", "60"}
	said, err := exec.Command("nsenter", append(enter, words...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", words, err, said)
	}
	return string(said), err
}

func (h systemdHost) must(words ...string) string {
	h.t.Helper()
	said, err := h.run(words...)
	if err != nil {
		h.t.Fatal(err)
	}
	return said
}

// property returns what systemd says of the unit.
func (h systemdHost) property(name string) string {
	h.t.Helper()
	return strings.TrimSpace(h.must("systemctl", "show", "--value", "--property="+name, "wasmatrix"))
}

// cgroupMount returns where the tree of control groups is, of version 2.
func cgroupMount() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 2 && words[2] == "cgroup2" {
			return words[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted")
}

// removeGroups removes a control group and those in it.
func removeGroups(group string) error {
	entries, err := os.ReadDir(group)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(group)
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
