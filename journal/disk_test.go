package journal

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// badDisk is the real disk, but whoever has it in hand decides what goes wrong. It knows what a power
// cut would take away: bytes that were not synced, and renames whose directory was not.
type badDisk struct {
	osDisk

	mu      sync.Mutex
	fails   func(op, path string) error // asked before each operation; half of a failed write is done
	synced  map[string]int64            // by path, how much of the file a power cut leaves
	renamed *undo                       // the rename that a power cut may take back
	newest  *badFile                    // made last
}

type undo struct {
	from, to string
	old      []byte // what was at to; nil if nothing was
	synced   int64  // of old
}

func newBadDisk() *badDisk { return &badDisk{synced: map[string]int64{}} }

// set makes operations fail as f says from now on; nil for not at all.
func (d *badDisk) set(f func(op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = f
}

func (d *badDisk) ask(op, path string) error {
	d.mu.Lock()
	f := d.fails
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := f(op, path); err != nil {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

func (d *badDisk) Create(path string) (file, error) {
	if err := d.ask("create", path); err != nil {
		return nil, err
	}
	f, err := d.osDisk.Create(path)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced[path] = 0
	d.newest = &badFile{file: f, disk: d, path: path}
	return d.newest, err
}

func (d *badDisk) Rename(from, to string) error {
	if err := d.ask("rename", from); err != nil {
		return err
	}
	old, err := os.ReadFile(to)
	if err != nil {
		old = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renamed = &undo{from, to, old, d.synced[to]}
	d.synced[to] = d.synced[from]
	d.newest.path = to
	return d.osDisk.Rename(from, to)
}

func (d *badDisk) Link(from, to string) error {
	if err := d.ask("link", from); err != nil {
		return err
	}
	return d.osDisk.Link(from, to)
}

func (d *badDisk) Remove(path string) error {
	if err := d.ask("remove", path); err != nil {
		return err
	}
	return d.osDisk.Remove(path)
}

func (d *badDisk) SyncDir(dir string) error {
	if err := d.ask("syncdir", dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renamed = nil
	return nil
}

// badFile is like one in Linux: what a sync that failed was to write is not written by the next one
// either, which succeeds all the same.
type badFile struct {
	file
	disk   *badDisk
	path   string
	size   int64
	failed bool
}

func (f *badFile) Write(p []byte) (int, error) {
	err := f.disk.ask("write", f.path)
	if err != nil {
		p = p[:len(p)/2]
	}
	n, werr := f.file.Write(p)
	f.size += int64(n)
	return n, errors.Join(err, werr)
}

func (f *badFile) Sync() error {
	if err := f.disk.ask("sync", f.path); err != nil {
		f.failed = true
		return err
	}
	if f.failed {
		return nil
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.synced[f.path] = f.size
	return nil
}

// cutPower leaves in the directory what was synced, and of the rest what chance wants. It returns up to
// where the file is as it was written.
func (d *badDisk) cutPower(t *rapid.T, path string) int64 {
	t.Helper()
	if u := d.renamed; u != nil && rapid.Bool().Draw(t, "the rename is lost") {
		err := os.Rename(u.to, u.from)
		if err == nil && u.old != nil {
			err = os.WriteFile(u.to, u.old, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return u.synced
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	size, synced := int64(len(data)), d.synced[path]
	left := rapid.Int64Range(synced, size).Draw(t, "bytes left")
	from := rapid.Int64Range(synced, left).Draw(t, "zeros from") // a block that had not been written yet
	clear(data[from:rapid.Int64Range(from, left).Draw(t, "zeros to")])
	if err := os.WriteFile(path, data[:left], 0o600); err != nil {
		t.Fatal(err)
	}
	return synced
}

func always(op string, err error) func(string, string) error {
	return func(o, _ string) error {
		if o == op {
			return err
		}
		return nil
	}
}

func TestDiskErrorIsToldAndOvercome(t *testing.T) {
	for _, c := range []struct {
		op   string
		err  syscall.Errno
		hint string
	}{
		{"write", syscall.ENOSPC, "free space on the disk of "},
		{"write", syscall.EDQUOT, "free space on the disk of "},
		{"sync", syscall.EIO, "check the disk of "},
		{"write", syscall.EROFS, "mount the disk of "},
		{"sync", syscall.EACCES, "writable for the user"},
	} {
		t.Run(c.op+" "+c.err.Error(), func(t *testing.T) {
			disk, log := newBadDisk(), newLogged()
			cfg := Config{Dir: t.TempDir(), Retry: time.Millisecond, Log: slog.New(log), disk: disk}
			j, _, stop := start(t, cfg)
			wait(t, j.Put(record("a", 0, 1)))
			disk.set(always(c.op, c.err))
			first := j.Put(record("b", 0, 1))
			err := first.Wait(t.Context())
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.hint) || !strings.Contains(err.Error(), cfg.Dir) {
				t.Fatalf("got %v", err)
			}
			if err := j.Trouble(); !errors.Is(err, c.err) {
				t.Fatalf("its trouble is %v", err)
			}
			if n := testutil.ToFloat64(j.metrics.failures); n == 0 {
				t.Fatal("it counts no failure")
			}
			j.Remove("a", 0)
			second := j.Put(record("c", 0, 1))
			if err := second.Wait(t.Context()); !errors.Is(err, c.err) {
				t.Fatalf("got %v", err)
			}
			disk.set(nil)
			for second.Wait(t.Context()) != nil { // each tells how it stands
				time.Sleep(time.Millisecond)
			}
			wait(t, first)
			if err := j.Trouble(); err != nil {
				t.Fatalf("after it was overcome, its trouble is %v", err)
			}
			for log.at(slog.LevelInfo) == 0 && t.Context().Err() == nil { // it is said just after it is so
				time.Sleep(time.Millisecond)
			}
			if errors, infos := log.at(slog.LevelError), log.at(slog.LevelInfo); errors != 1 || infos != 1 {
				t.Fatalf("logged %d errors and %d other lines", errors, infos)
			}
			stop()
			_, found := open(t, cfg)
			if got := describe(byID(found.Records)); got != "b/0/1 c/0/1" || len(found.Damage) != 0 {
				t.Fatalf("holds %s, damage %v", got, found.Damage)
			}
		})
	}
}

func TestStartOnAFullDiskKeepsWhatWasThere(t *testing.T) {
	s := newSample(t)
	disk := newBadDisk()
	disk.set(always("write", syscall.ENOSPC))
	cfg := written(t, s.data)
	cfg.Retry, cfg.disk = time.Millisecond, disk
	j, _ := open(t, cfg)
	stop := run(j)
	if err := j.Put(record("x", 0, 1)).Wait(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if err := stop(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("ended with %v", err)
	}
	expect(t, cfg, s.without(t, -1))
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("attempts left %v, %v", entries, err)
	}
}

func TestCompactionThatFailsHarmsNobody(t *testing.T) {
	disk, log := newBadDisk(), newLogged()
	cfg := Config{Dir: t.TempDir(), CompactAbove: 1, disk: disk, Log: slog.New(log)}
	j, _, stop := start(t, cfg)
	wait(t, j.Put(record("a", 0, 0)))
	disk.set(always("create", syscall.ENOSPC))
	for n := range uint64(50) {
		wait(t, j.Put(record("a", 0, n)))
	}
	if n := log.at(slog.LevelWarn); n < 1 || n > 5 {
		t.Fatalf("%d warnings", n)
	}
	disk.set(nil)
	stop()
	_, found := open(t, cfg)
	if got := describe(byID(found.Records)); got != "a/0/49" || len(found.Damage) != 0 {
		t.Fatalf("holds %s, damage %v", got, found.Damage)
	}
}

// The old file may have no name any more: what is appended to it would be lost.
func TestCompactionThatMayHaveHappenedIsRepeated(t *testing.T) {
	disk := newBadDisk()
	cfg := Config{Dir: t.TempDir(), CompactAbove: 1, Retry: time.Millisecond, disk: disk}
	j, _, stop := start(t, cfg)
	wait(t, j.Put(record("a", 0, 0)))
	failed := false
	disk.set(func(op, _ string) error {
		if op == "syncdir" && !failed {
			failed = true
			return syscall.EIO
		}
		return nil
	})
	uncertain := 0
	for n := range uint64(20) {
		for ticket := j.Put(record("a", 0, n)); ticket.Wait(t.Context()) != nil; uncertain++ {
			time.Sleep(time.Millisecond)
		}
		data, err := os.ReadFile(filepath.Join(cfg.Dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := decode(data); err != nil || c.records["a"].GetRevision() != n {
			t.Fatalf("the file has revision %d and not %d, %v", c.records["a"].GetRevision(), n, err)
		}
	}
	if uncertain == 0 {
		t.Fatal("no compaction failed")
	}
	stop()
}

func TestDamagedFileThatCanNotBeKeptAsideIsReplaced(t *testing.T) {
	s := newSample(t)
	cfg := written(t, s.data[:s.ends[5]+1])
	disk, log := newBadDisk(), newLogged()
	disk.set(always("link", syscall.EPERM)) // a file system without hard links
	cfg.disk, cfg.Log = disk, slog.New(log)
	_, _, stop := start(t, cfg)
	stop()
	expect(t, cfg, s.without(t, 6))
	if log.at(slog.LevelWarn) != 1 {
		t.Fatalf("logged %v", log.lines)
	}
}

func TestHangingDiskHoldsUpNobodyButItsWaiters(t *testing.T) {
	disk := newBadDisk()
	cfg := Config{Dir: t.TempDir(), FlushTimeout: 10 * time.Millisecond, disk: disk}
	j, _ := open(t, cfg)
	stop := run(j)
	wait(t, j.SetMeta("epoch", []byte{1}))
	hanging, answer := make(chan struct{}), make(chan struct{})
	hang := sync.OnceFunc(func() { close(hanging) })
	disk.set(func(op, _ string) error {
		if op == "sync" {
			hang()
			<-answer
		}
		return nil
	})
	first := j.Put(record("a", 0, 1))
	<-hanging
	if j.Writing() <= 0 || j.Trouble() != nil {
		t.Errorf("while the disk hangs the journal has written for %s, and its trouble is %v", j.Writing(), j.Trouble())
	}
	for n := range uint64(1000) { // what comes and goes is not remembered
		j.Put(record("b", 0, n))
		j.Put(record("c", 0, n))
		j.Remove("c", 0)
		j.Put(record(string(rune('d'+n)), 0, n))
		j.Remove(string(rune('d'+n)), 0)
	}
	j.mu.Lock()
	changes := len(j.changes)
	j.mu.Unlock()
	if changes != 1 {
		t.Fatalf("%d changes are kept for one instance", changes)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for _, ticket := range []Ticket{first, j.SetMeta("epoch", []byte{2})} {
		if err := ticket.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
	}
	if err := stop(); err == nil || !strings.Contains(err.Error(), "has not answered") {
		t.Fatalf("ended with %v", err)
	}
	close(answer)
	wait(t, first)
	for j.Writing() != 0 && t.Context().Err() == nil { // the rest is written
		time.Sleep(time.Millisecond)
	}
}
