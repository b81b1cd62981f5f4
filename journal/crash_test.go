package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

var errCrash = errors.New("the power is gone")

// history is what may be found of each instance: what was promised to be on disk, and what came later.
type history struct {
	promised map[string]*pb.Instance // nil for a removed one
	later    map[string][]*pb.Instance
}

func (h *history) add(id string, rec *pb.Instance) { h.later[id] = append(h.later[id], rec) }

// keep notes that all of it is on disk.
func (h *history) keep() {
	for id, records := range h.later {
		h.promised[id] = records[len(records)-1]
	}
	clear(h.later)
}

// check compares what was found; that is what counts from then on.
func (h *history) check(t *rapid.T, found Recovered) {
	t.Helper()
	got := byID(found.Records)
	for _, id := range crashIDs {
		may := append([]*pb.Instance{h.promised[id]}, h.later[id]...)
		if !slices.ContainsFunc(may, func(rec *pb.Instance) bool { return proto.Equal(rec, got[id]) }) {
			t.Fatalf("%s has revision %d; it may be one of %v", id, got[id].GetRevision(), may)
		}
		h.promised[id] = got[id]
	}
	clear(h.later)
}

var crashIDs = []string{"a", "b", "c"}

// Whatever the moment of the crash, and whatever went wrong before: what somebody was told to be on disk
// is there, and nothing is there that nobody put. Most limits make almost each write a compaction.
func TestPropertyPowerCutLosesNothingThatWasPromised(t *testing.T) {
	tempDir := t.TempDir
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Dir:          tempDir(),
			CompactAbove: rapid.Int64Range(1, 5000).Draw(t, "compact above"),
			Retry:        time.Microsecond,
		}
		path := filepath.Join(cfg.Dir, fileName)
		h := &history{promised: map[string]*pb.Instance{}, later: map[string][]*pb.Instance{}}
		revision := uint64(0)
		for range rapid.IntRange(1, 3).Draw(t, "crashes") {
			disk := newBadDisk()
			if info, err := os.Stat(path); err == nil {
				disk.synced[path] = info.Size()
			}
			step, end := 0, rapid.IntRange(0, 60).Draw(t, "operations before the crash")
			errs := rapid.SliceOf(rapid.IntRange(0, 60)).Draw(t, "operations that fail")
			disk.fails = func(string, string) error {
				step++
				switch {
				case step > end:
					return errCrash
				case slices.Contains(errs, step):
					return syscall.EIO
				}
				return nil
			}
			cfg.disk = disk
			j, found := open(t, cfg)
			h.check(t, found)
			damaged := len(found.Damage) > 0 // and stays so until it is replaced
			stop := run(j)
			for range rapid.IntRange(0, 20).Draw(t, "entries") {
				id := rapid.SampledFrom(crashIDs).Draw(t, "id")
				var ticket Ticket
				if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
					h.add(id, nil)
					ticket = j.Remove(id, 0)
				} else {
					revision++
					rec := record(id, 0, revision)
					h.add(id, rec)
					ticket = j.Put(rec)
				}
				if rapid.Bool().Draw(t, "wait") && ticket.Wait(context.Background()) == nil {
					h.keep()
				}
			}
			disk.set(func(string, string) error { return errCrash })
			if err := stop(); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			intact := disk.cutPower(t, path)
			_, found = open(t, cfg)
			for _, d := range found.Damage {
				if d.Offset < intact && !damaged {
					t.Fatalf("%v, though %d bytes were synced", d, intact)
				}
			}
			h.check(t, found)
		}
	})
}

// What a process leaves that dies between two steps of a compaction, written down once more as
// directories.
func TestLeftOverTemporaryFileIsIgnored(t *testing.T) {
	s := newSample(t)
	for name, left := range map[string][]byte{"nothing": {}, "a part": s.data[:s.ends[0]+3], "another whole file": s.data[:s.ends[1]]} {
		t.Run(name, func(t *testing.T) {
			cfg := written(t, s.data)
			temporary := filepath.Join(cfg.Dir, fileName+".new")
			if err := os.WriteFile(temporary, left, 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, cfg, s.without(t, -1))
			j, _, stop := start(t, cfg)
			wait(t, j.SetMeta("epoch", []byte(marker+marker)))
			stop()
			expect(t, cfg, s.without(t, -1))
			if _, err := os.Stat(temporary); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("it is still there: %v", err)
			}
		})
	}
}

func TestCompactedFileHoldsOnlyWhatIsLive(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), disk: unsynced{}}
	j, _, _ := start(t, cfg)
	path := filepath.Join(cfg.Dir, fileName)
	limit := int64(1 << 20)
	largest, shrunk := int64(0), false
	for n := range uint64(10_000) { // three times the limit
		wait(t, j.Put(record("a", 0, n)))
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		largest, shrunk = max(largest, info.Size()), shrunk || info.Size() < largest
	}
	if largest > limit || largest < limit-1000 || !shrunk {
		t.Fatalf("grew to %d bytes", largest)
	}
}
