package journal

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// promises are the revisions of which Wait said that they are on disk.
type promises struct {
	mu  sync.Mutex
	ids map[string]uint64
}

func (p *promises) note(id string, revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids[id] = revision
}

func (p *promises) now() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.ids)
}

// Many instances change while the file is compacted over and over, and somebody kills the process at
// many moments: a copy of the file is what it would find after its restart.
func TestHammerWhatIsPromisedIsInEachCopyOfTheFile(t *testing.T) {
	const instances, rounds = 32, 60
	cfg := Config{Dir: t.TempDir(), CompactAbove: 4 << 10}
	j, _, stop := start(t, cfg)
	wait(t, j.SetMeta("epoch", []byte{1})) // the file is there
	p := &promises{ids: map[string]uint64{}}
	var work, copies sync.WaitGroup
	for n := range instances {
		work.Go(func() {
			id := fmt.Sprint("instance-", n)
			for r := uint64(1); r <= rounds; r++ {
				j.Put(record(fmt.Sprint("passing-", n), r, r))
				ticket := j.Put(record(id, r/10, r))
				j.Remove(fmt.Sprint("passing-", n), r)
				if r%3 == 0 {
					continue
				}
				if err := ticket.Wait(t.Context()); err != nil {
					t.Error(err)
					return
				}
				p.note(id, r)
			}
		})
	}
	over := make(chan struct{})
	copies.Go(func() {
		for {
			checkCopy(t, cfg, p.now())
			select {
			case <-over:
				return
			default:
			}
		}
	})
	work.Wait()
	close(over)
	copies.Wait()
	stop()
	_, found := open(t, cfg)
	if len(found.Damage) != 0 || len(found.Records) != instances {
		t.Fatalf("%d records, damage %v", len(found.Records), found.Damage)
	}
	for _, rec := range found.Records {
		if rec.GetRevision() != rounds {
			t.Fatalf("%s has revision %d", rec.GetInstanceId(), rec.GetRevision())
		}
	}
}

func checkCopy(t *testing.T, cfg Config, promised map[string]uint64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(cfg.Dir, fileName))
	if err != nil {
		t.Error(err)
		return
	}
	c, err := decode(data)
	if err != nil {
		t.Error(err)
		return
	}
	for _, d := range c.damage {
		if !d.Torn {
			t.Errorf("the copy has damage: %v", d)
		}
	}
	for id, revision := range promised {
		if got := c.records[id].GetRevision(); got < revision {
			t.Errorf("%s has revision %d in the copy, and %d was promised", id, got, revision)
		}
	}
}

func benchJournal(b *testing.B, instances int) (*Journal, []*pb.Instance) {
	b.Helper()
	records := make([]*pb.Instance, instances)
	j, _, _ := start(b, Config{Dir: b.TempDir()})
	for n := range records {
		records[n] = record(fmt.Sprintf("0f5cbd6e-94a5-4cf4-9ad5-%012d", n), 0, 1)
		j.Put(records[n])
	}
	wait(b, j.SetMeta("epoch", []byte{1}))
	return j, records
}

func BenchmarkEncode(b *testing.B) {
	rec := record("0f5cbd6e-94a5-4cf4-9ad5-000000000000", 0, 1)
	for b.Loop() {
		if _, err := instanceFrame(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	j, records := benchJournal(b, 10_000)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		j.Put(records[n%len(records)])
		n++
	}
}

func BenchmarkPutWait(b *testing.B) {
	for _, waiters := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("waiters=", waiters), func(b *testing.B) {
			j, records := benchJournal(b, waiters)
			b.ResetTimer()
			var all sync.WaitGroup
			for n := range waiters {
				all.Go(func() {
					for range b.N / waiters {
						if err := j.Put(records[n]).Wait(b.Context()); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}

func BenchmarkOpen10000(b *testing.B) {
	data := header()
	for n := range 10_000 {
		frame, err := instanceFrame(record(fmt.Sprintf("0f5cbd6e-94a5-4cf4-9ad5-%012d", n), 0, 1))
		if err != nil {
			b.Fatal(err)
		}
		data = append(data, frame...)
	}
	cfg := written(b, data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, found := open(b, cfg); len(found.Records) != 10_000 {
			b.Fatalf("%d records", len(found.Records))
		}
	}
}
