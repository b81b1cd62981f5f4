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

	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
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
	d.newest = &badFile{f, d, path, 0}
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
	d.synced[to] = d.synced[from]
	d.newest.path = to
	d.renamed = &undo{from, to, old}
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
	return d.osDisk.SyncDir(dir)
}

type badFile struct {
	file
	disk *badDisk
	path string
	size int64
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
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.synced[f.path] = f.size
	return f.file.Sync()
}

// cutPower leaves in the directory what was synced, and of the rest what chance wants.
func (d *badDisk) cutPower(t *rapid.T, path string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.renamed != nil && rapid.Bool().Draw(t, "the rename is lost") {
		u := d.renamed
		err := os.Rename(u.to, u.from)
		if err == nil && u.old != nil {
			err = os.WriteFile(u.to, u.old, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	left := rapid.Int64Range(min(d.synced[path], info.Size()), info.Size()).Draw(t, "bytes left")
	if err := os.Truncate(path, left); err != nil {
		t.Fatal(err)
	}
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
			if log.at(slog.LevelError) != 1 || log.at(slog.LevelInfo) != 1 {
				t.Fatalf("logged %v", log.lines)
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
}

var errCrash = errors.New("the power is gone")

// Whatever the moment of the crash: what somebody was told to be on disk is there, and nothing is there
// that nobody put. CompactAbove makes almost each write a compaction.
func TestPropertyPowerCutLosesNothingThatWasPromised(t *testing.T) {
	tempDir := t.TempDir
	rapid.Check(t, func(t *rapid.T) {
		dir := tempDir()
		path := filepath.Join(dir, fileName)
		cfg := Config{Dir: dir, CompactAbove: rapid.Int64Range(1, 5000).Draw(t, "compact above")}
		promised := map[string]*pb.Instance{} // nil for removed
		revision := uint64(0)
		for range rapid.IntRange(1, 3).Draw(t, "crashes") {
			disk := newBadDisk()
			if info, err := os.Stat(path); err == nil {
				disk.synced[path] = info.Size()
			}
			steps := rapid.IntRange(0, 40).Draw(t, "operations before the crash")
			disk.fails = func(string, string) error {
				if steps--; steps < 0 {
					return errCrash
				}
				return nil
			}
			cfg.disk = disk
			j, found := open(t, cfg)
			checkPromised(t, found, promised, nil)
			stop := run(j)
			pending := map[string]*pb.Instance{}
			for range rapid.IntRange(0, 15).Draw(t, "entries") {
				id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
				var ticket Ticket
				if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
					pending[id] = nil
					ticket = j.Remove(id, 0)
				} else {
					revision++
					pending[id] = record(id, 0, revision)
					ticket = j.Put(pending[id])
				}
				if rapid.Bool().Draw(t, "wait") {
					if ticket.Wait(context.Background()) != nil {
						break
					}
					for id, rec := range pending {
						promised[id] = rec
					}
					clear(pending)
				}
			}
			disk.set(func(string, string) error { return errCrash })
			if err := stop(); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			disk.cutPower(t, path)
			_, found = open(t, cfg)
			checkPromised(t, found, promised, pending)
			for id := range pending { // either is fine, and from now on it is what was found
				promised[id] = byID(found.Records)[id]
			}
		}
	})
}

// checkPromised compares what was found with what was promised. Ids among pending may be later than that.
func checkPromised(t *rapid.T, found Recovered, promised, pending map[string]*pb.Instance) {
	t.Helper()
	got := byID(found.Records)
	for id, want := range promised {
		if _, open := pending[id]; open && got[id].GetRevision() >= want.GetRevision() {
			continue
		}
		if _, open := pending[id]; open && got[id] == nil { // removed last, or in between
			continue
		}
		if got[id].GetRevision() != want.GetRevision() {
			t.Fatalf("%s has revision %d, and %d was promised", id, got[id].GetRevision(), want.GetRevision())
		}
	}
	for _, d := range found.Damage {
		if !d.Torn {
			t.Fatalf("a power cut left %v", d)
		}
	}
}
