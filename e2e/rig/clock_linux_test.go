package rig

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// sayTime makes a process of this test one that prints the wall clock, and for how long it runs.
const sayTime = "WASMATRIX_RIG_SAYS_THE_TIME"

func TestMain(m *testing.M) {
	if os.Getenv(sayTime) == "" {
		os.Exit(m.Run())
	}
	began := time.Now()
	for range time.Tick(time.Millisecond) {
		now := time.Now()
		if _, err := fmt.Println(now.UnixNano(), int64(now.Sub(began))); err != nil {
			os.Exit(1)
		}
	}
}

func TestAClockStepsForOneProcessAndItsMonotonicTimeGoesOn(t *testing.T) {
	if err := CanStepClocks(t); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sayTime+"=1")
	cmd.SysProcAttr = attributes()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	lines := bufio.NewScanner(out)
	off := func() time.Duration {
		var wall, ran int64
		if _, err := fmt.Sscan(lines.Text(), &wall, &ran); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if took := time.Duration(ran); took < 0 || took > time.Since(began) {
			t.Fatalf("a process that was started %s ago says that it runs since %s", time.Since(began), took)
		}
		return time.Since(time.Unix(0, wall)).Round(10 * time.Second)
	}
	for _, by := range []time.Duration{0, time.Hour, -90 * time.Minute, 10 * time.Second, 0} {
		if err := stepClock(t, cmd.Process.Pid, by); err != nil {
			t.Fatal(err)
		}
		Wait(t, fmt.Sprintf("the process to be %s ahead", by), 5*time.Second, func() error {
			for range 100 {
				if !lines.Scan() {
					return fmt.Errorf("it ended: %w", lines.Err())
				}
			}
			return Want("how far it is behind", off(), -by)
		})
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}
