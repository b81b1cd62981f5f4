package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// sample is the bytes of a small journal, taken apart.
type sample struct {
	data   []byte
	starts []int // of the frames
	ends   []int
}

func newSample(t testing.TB) sample {
	t.Helper()
	var frames [][]byte
	add := func(frame []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, frame)
	}
	add(instanceFrame(&pb.Instance{InstanceId: "a", Generation: 1, Revision: 1}))
	add(metaFrame("epoch", []byte{1}))
	add(instanceFrame(&pb.Instance{InstanceId: "b", Generation: 1, LastError: "it \x00 ended"}))
	add(instanceFrame(&pb.Instance{InstanceId: "a", Generation: 1, Revision: 2}))
	add(removalFrame("b"))
	add(metaFrame("epoch", []byte(marker+marker)))
	add(instanceFrame(&pb.Instance{InstanceId: "c", Generation: 7, NodeName: "host-5"}))
	s := sample{data: header()}
	for _, frame := range frames {
		s.starts = append(s.starts, len(s.data))
		s.data = append(s.data, frame...)
		s.ends = append(s.ends, len(s.data))
	}
	return s
}

// without returns what a journal holds that lacks one of the frames, or none.
func (s sample) without(t *testing.T, lost int) *contents {
	t.Helper()
	c := &contents{held: map[key]entry{}, records: map[string]*pb.Instance{}}
	for i := range s.starts {
		if i != lost {
			s.apply(t, c, i)
		}
	}
	return c
}

func (s sample) apply(t *testing.T, c *contents, i int) {
	t.Helper()
	if err := c.apply(s.data[s.starts[i]:s.ends[i]]); err != nil {
		t.Fatal(err)
	}
}

// written puts bytes where a journal will look for them.
func written(t testing.TB, data []byte) Config {
	t.Helper()
	cfg := Config{Dir: t.TempDir()}
	overwrite(t, cfg, data)
	return cfg
}

func overwrite(t testing.TB, cfg Config, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cfg.Dir, fileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// expect opens a journal and compares what it recovers.
func expect(t *testing.T, cfg Config, want *contents, damage ...Damage) {
	t.Helper()
	_, found := open(t, cfg)
	w := want.recovered()
	if !sameRecords(byID(found.Records), byID(w.Records)) {
		t.Fatalf("holds %s, want %s", describe(byID(found.Records)), describe(byID(w.Records)))
	}
	if !maps.EqualFunc(found.Meta, w.Meta, bytes.Equal) {
		t.Fatalf("meta %q, want %q", found.Meta, w.Meta)
	}
	if len(found.Damage) != len(damage) {
		t.Fatalf("damage %v, want %v", found.Damage, damage)
	}
	for i, d := range found.Damage {
		if d.Reason == "" {
			t.Fatalf("damage without a reason: %v", d)
		}
		d.Reason = damage[i].Reason
		if d != damage[i] {
			t.Fatalf("damage %+v, want %+v", d, damage[i])
		}
	}
}

func TestTruncatedFileKeepsEachWholeFrame(t *testing.T) {
	s := newSample(t)
	cfg := written(t, nil)
	for size := range s.data {
		overwrite(t, cfg, s.data[:size])
		want := &contents{held: map[key]entry{}, records: map[string]*pb.Instance{}}
		if size < headerSize {
			expect(t, cfg, want, Damage{Bytes: int64(size), Torn: true})
			continue
		}
		whole := headerSize
		for i, end := range s.ends {
			if end <= size {
				s.apply(t, want, i)
				whole = end
			}
		}
		if whole == size {
			expect(t, cfg, want)
		} else {
			expect(t, cfg, want, Damage{Offset: int64(whole), Bytes: int64(size - whole), Torn: true})
		}
	}
}

func TestFlippedBitLosesItsFrameOnly(t *testing.T) {
	s := newSample(t)
	cfg := written(t, nil)
	for bit := range 8 * len(s.data) {
		data := bytes.Clone(s.data)
		data[bit/8] ^= 1 << (bit % 8)
		overwrite(t, cfg, data)
		lost, d := -1, Damage{Bytes: int64(headerSize)}
		for i, start := range s.starts {
			if bit/8 >= start {
				lost, d = i, Damage{Offset: int64(start), Bytes: int64(s.ends[i] - start), Torn: s.ends[i] == len(s.data)}
			}
		}
		expect(t, cfg, s.without(t, lost), d)
	}
}

func TestGarbageBetweenFramesLosesNothing(t *testing.T) {
	s := newSample(t)
	cfg := written(t, nil)
	for name, garbage := range map[string]string{
		"one byte":      "x",
		"text":          "\nMar 14 12:00:00 host-5 kernel: something else\n",
		"a block of 0s": strings.Repeat("\x00", 4096),
		"a marker":      marker,
		"many markers":  strings.Repeat(marker, 1000),
		"a long frame":  marker + "\x00\x00\x00\x01" + "1234" + "and so on",
		"a huge frame":  marker + "\xff\xff\xff\xff" + "1234" + "and so on",
	} {
		for i, start := range append(s.starts, len(s.data)) {
			t.Run(fmt.Sprintf("%s before frame %d", name, i), func(t *testing.T) {
				overwrite(t, cfg, []byte(string(s.data[:start])+garbage+string(s.data[start:])))
				expect(t, cfg, s.without(t, -1), Damage{Offset: int64(start), Bytes: int64(len(garbage)), Torn: start == len(s.data)})
			})
		}
	}
}

func TestSeveralDamagesAreReportedEach(t *testing.T) {
	s := newSample(t)
	data := bytes.Clone(s.data)
	data[s.ends[0]-1]++
	clear(data[s.starts[3]:s.ends[4]]) // two frames, one stretch
	want := &contents{held: map[key]entry{}, records: map[string]*pb.Instance{}}
	for _, i := range []int{1, 2, 5, 6} {
		s.apply(t, want, i)
	}
	expect(t, written(t, data), want,
		Damage{Offset: int64(s.starts[0]), Bytes: int64(s.ends[0] - s.starts[0])},
		Damage{Offset: int64(s.starts[3]), Bytes: int64(s.ends[4] - s.starts[3])})
}

func TestIntactFrameOfUnknownMeaningIsDamage(t *testing.T) {
	s := newSample(t)
	for name, payload := range map[string]string{
		"kind":      "?what",
		"record":    "i\xff\xff\xff",
		"record id": "i",
		"meta":      "m\x09short",
	} {
		t.Run(name, func(t *testing.T) {
			frame, err := seal(append(begin(kind(payload[0]), 0), payload[1:]...))
			if err != nil {
				t.Fatal(err)
			}
			data := append(append(bytes.Clone(s.data[:s.starts[2]]), frame...), s.data[s.starts[2]:]...)
			expect(t, written(t, data), s.without(t, -1), Damage{Offset: int64(s.starts[2]), Bytes: int64(len(frame))})
		})
	}
}

func TestUnknownVersionIsRefused(t *testing.T) {
	h := binary.LittleEndian.AppendUint32([]byte(magic), version+1)
	h = binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
	s := newSample(t)
	cfg := written(t, append(h, s.data[headerSize:]...))
	_, _, err := Open(cfg)
	if err == nil || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), cfg.Dir) {
		t.Fatalf("got %v", err)
	}
}

func TestDamagedFileIsKeptAsideAndReplaced(t *testing.T) {
	s := newSample(t)
	cfg := written(t, nil)
	var data []byte
	for round := range maxDamaged + 2 {
		data = bytes.Clone(s.data)
		data[s.starts[0]+frameHeaderSize+2] += byte(round + 1)
		overwrite(t, cfg, data)
		_, found, stop := start(t, cfg)
		if len(found.Damage) != 1 {
			t.Fatalf("damage %v", found.Damage)
		}
		stop()
		expect(t, cfg, s.without(t, 0))
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != maxDamaged+1 {
		t.Fatalf("%d files: %v", len(entries), entries)
	}
	newest, err := os.ReadFile(filepath.Join(cfg.Dir, entries[len(entries)-1].Name()))
	if err != nil || !bytes.Equal(newest, data) {
		t.Fatalf("the newest kept aside is another: %v", err)
	}
}

func TestTornTailIsNoErrorInTheLogAndOtherDamageIs(t *testing.T) {
	s := newSample(t)
	flipped := bytes.Clone(s.data)
	flipped[s.starts[1]]++
	for level, data := range map[slog.Level][]byte{
		slog.LevelInfo:  append(bytes.Clone(s.data), make([]byte, 100)...),
		slog.LevelError: flipped,
	} {
		log := newLogged()
		cfg := written(t, data)
		cfg.Log = slog.New(log)
		open(t, cfg)
		if len(log.lines) != 1 || log.at(level) != 1 {
			t.Fatalf("logged %v, want one line of level %s", log.lines, level)
		}
		path := false
		log.lines[0].Attrs(func(a slog.Attr) bool {
			path = path || a.Value.String() == filepath.Join(cfg.Dir, fileName)
			return true
		})
		if !path {
			t.Fatalf("no path in %v", log.lines[0])
		}
	}
}

// badBlocks is a file of which the disk does not give back some blocks.
type badBlocks struct {
	*bytes.Reader
	from, to int64
	err      error
}

func (b badBlocks) ReadAt(p []byte, at int64) (int, error) {
	if at < b.to && at+int64(len(p)) > b.from {
		return 0, &os.PathError{Op: "read", Path: "journal", Err: b.err}
	}
	return b.Reader.ReadAt(p, at)
}

func TestUnreadableBlocksAreReadAround(t *testing.T) {
	data := bytes.Repeat([]byte{1, 2, 3, 4}, 5000)
	r := badBlocks{bytes.NewReader(data), 5000, 9000, syscall.EIO}
	got, lost, err := readAround(r, int64(len(data)))
	want := bytes.Clone(data)
	clear(want[4096 : 3*4096])
	if err != nil || lost != 2*4096 || !bytes.Equal(got, want) {
		t.Fatalf("lost %d, %v", lost, err)
	}
	r.err = syscall.ENXIO
	if _, _, err := readAround(r, int64(len(data))); err == nil {
		t.Fatal("a disk that is gone was taken for a damaged one")
	}
	r.from, r.to = 0, 0
	if got, lost, err := readAround(r, int64(len(data)+9)); err != nil || lost != 0 || !bytes.Equal(got, data) {
		t.Fatalf("of a file that shrank: %d bytes, %v", len(got), err)
	}
}

func TestFileThatCanNotBeReadIsAnError(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(cfg.Dir, fileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(cfg); err == nil {
		t.Fatal("a directory was read")
	}
}

func FuzzOpen(f *testing.F) {
	s := newSample(f)
	f.Add(s.data)
	f.Add(s.data[:s.ends[2]-1])
	f.Add(append(bytes.Clone(s.data[:s.starts[3]]), s.data[s.starts[4]:]...))
	f.Add(s.data[headerSize:])
	f.Add([]byte(strings.Repeat(marker, 20)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := written(t, data)
		cfg.disk = unsynced{}
		j, first, err := Open(cfg)
		if err != nil {
			return
		}
		if err := run(j)(); err != nil {
			t.Fatal(err)
		}
		_, second := open(t, cfg)
		if len(second.Damage) != 0 {
			t.Fatalf("wrote %v", second.Damage)
		}
		if !sameRecords(byID(first.Records), byID(second.Records)) || !maps.EqualFunc(first.Meta, second.Meta, bytes.Equal) {
			t.Fatalf("first %v, then %v", first, second)
		}
	})
}

// unsynced is the real disk without waiting for it.
type unsynced struct{ osDisk }

type unsyncedFile struct{ file }

func (d unsynced) Create(path string) (file, error) {
	f, err := d.osDisk.Create(path)
	return unsyncedFile{f}, err
}

func (unsynced) SyncDir(string) error { return nil }

func (unsyncedFile) Sync() error { return nil }
