package rig

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// CanStepClocks returns nil where the clock of one process can be stepped, or says what that takes.
func CanStepClocks(t T) error {
	t.Helper()
	return onTrial(t, func(pid int) error {
		return errors.Join(stepClock(t, pid, time.Hour), stepClock(t, pid, 0))
	})
}

// StepClock has the wall clock of the node's process, and of nobody else, be off by whole seconds from now
// on; by nothing is the end of it. A process started later has the true time.
//
// Programs ask the vDSO for the time, code that the kernel lends to each process. This process's copy of it
// is written over. Its monotonic clock goes on as if nothing was, as where an operator sets the date.
func (n *Node) StepClock(by time.Duration) error {
	n.t.Helper()
	if err := stepClock(n.t, n.PID(), by); err != nil {
		return fmt.Errorf("step the clock of %s by %s: %w", n.Name, by, err)
	}
	return nil
}

func stepClock(t T, pid int, by time.Duration) error {
	t.Helper()
	lent, err := vdsoOf(os.Getpid()) // the kernel lends the same to all
	if err != nil {
		return err
	}
	start, code, err := clockGettime(lent.image)
	if err != nil {
		return err
	}
	length := uint64(len(code)) // of all of it, which may jump back to its beginning
	if by != 0 {
		stub, err := steppedClock(by)
		if err != nil {
			return err
		}
		if len(stub) > len(code) {
			return fmt.Errorf("the kernel's clock_gettime is %d bytes long, and one that steps takes %d", len(code), len(stub))
		}
		code = stub
	}
	theirs, err := vdsoOf(pid)
	if err != nil {
		return err
	}
	from := theirs.at + start
	return standing(t, pid, from, from+length, func() error {
		memory, err := os.OpenFile(procFile(pid, "mem"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = memory.WriteAt(code, int64(from))
		return errors.Join(err, memory.Close())
	})
}

// steppedClock returns machine code that asks the kernel for the time and adds to that of the wall clock.
func steppedClock(by time.Duration) ([]byte, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("there is no code for a clock that steps on %s", runtime.GOARCH)
	}
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(by/time.Second))
	return bytes.Join([][]byte{
		{0xb8, syscall.SYS_CLOCK_GETTIME, 0, 0, 0}, // mov eax, SYS_clock_gettime
		{0x0f, 0x05},       // syscall
		{0x85, 0xff},       // test edi, edi: CLOCK_REALTIME is 0
		{0x75, 13},         // jne to the ret
		{0x48, 0xb9},       // mov rcx, seconds
		seconds,            //
		{0x48, 0x01, 0x0e}, // add [rsi], rcx
		{0xc3},             // ret
	}, nil), nil
}

// vdso is what the kernel lends to a process, and where.
type vdso struct {
	at    uint64
	image []byte
}

func vdsoOf(pid int) (vdso, error) {
	maps, err := os.ReadFile(procFile(pid, "maps"))
	if err != nil {
		return vdso{}, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return vdso{}, fmt.Errorf("%q in the maps of process %d: %w", line, pid, err)
		}
		memory, err := os.Open(procFile(pid, "mem"))
		if err != nil {
			return vdso{}, err
		}
		v := vdso{from, make([]byte, to-from)}
		_, err = memory.ReadAt(v.image, int64(from))
		return v, errors.Join(err, memory.Close())
	}
	return vdso{}, fmt.Errorf("process %d has no vDSO", pid)
}

// clockGettime returns where in a vDSO clock_gettime is, and its code.
func clockGettime(image []byte) (start uint64, code []byte, err error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, nil, fmt.Errorf("the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, nil, fmt.Errorf("the vDSO: %w", err)
	}
	for _, s := range symbols {
		if strings.HasSuffix(s.Name, "_clock_gettime") {
			return s.Value, image[s.Value : s.Value+s.Size], nil
		}
	}
	return 0, nil, errors.New("the vDSO has no clock_gettime")
}

// standing does something while no thread of a process runs, and none stands in that part of its memory.
// One that was stopped before stays so.
func standing(t T, pid int, from, to uint64, do func() error) error {
	t.Helper()
	all, err := ofThreads(pid, "status")
	if err != nil {
		return err
	}
	stopped := stands(all[0])
	var done error
	Wait(t, fmt.Sprintf("process %d to stand still", pid), 10*time.Second, func() error {
		if done = syscall.Kill(pid, syscall.SIGSTOP); errors.Is(done, syscall.ESRCH) {
			return nil // waiting does not bring it back
		}
		waits := poll(time.Second, func() error { return standsOutside(pid, from, to) })
		if waits == nil {
			done = do()
		}
		if !stopped {
			waits = errors.Join(waits, syscall.Kill(pid, syscall.SIGCONT))
		}
		return waits
	})
	return done
}

// standsOutside returns nil where all threads of a process stand, and none in that part of its memory.
func standsOutside(pid int, from, to uint64) error {
	all, err := ofThreads(pid, "status")
	if err != nil {
		return err
	}
	for _, status := range all {
		if !stands(status) {
			return fmt.Errorf("process %d has a thread that runs", pid)
		}
	}
	calls, err := ofThreads(pid, "syscall")
	if err != nil {
		return err
	}
	for _, call := range calls {
		words := strings.Fields(call) // the last one is the program counter
		counter, err := strconv.ParseUint(words[len(words)-1], 0, 64)
		if err != nil {
			return fmt.Errorf("where a thread of process %d stands: %w", pid, err)
		}
		if counter >= from && counter < to {
			return fmt.Errorf("process %d has a thread that reads the clock", pid)
		}
	}
	return nil
}

// stands says whether a thread with that status is stopped, by a signal or by who traces it.
func stands(status string) bool {
	return strings.Contains(status, "\nState:\tT") || strings.Contains(status, "\nState:\tt")
}

func procFile(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }
