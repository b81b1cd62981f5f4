package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// record returns one of about 300 bytes, as agents make them.
func record(id string, generation, revision uint64) *pb.Instance {
	return &pb.Instance{
		InstanceId: id,
		Spec: &pb.InstanceSpec{
			Name:             "ticker",
			ModuleHash:       "sha256:" + strings.Repeat("0123456789abcdef", 4),
			Args:             []string{"--every", "1s"},
			Env:              map[string]string{"LISTEN": "127.0.0.1:8080", "GREETING": "hello from a guest"},
			Constraints:      map[string]string{"zone": "eu-1"},
			RestartPolicy:    &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS},
			MemoryLimitBytes: 64 << 20,
		},
		NodeId: "3f0c2f5e-94a5-4cf4-9ad5-1f3f7a5a6d11", NodeName: "host-5",
		Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Durability: pb.Durability_DURABILITY_WITNESSED,
		CreatedAt:  &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 1},
		PlacedAt:   &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 2},
		StartedAt:  &timestamppb.Timestamp{Seconds: 1_700_000_001, Nanos: 3},
		Generation: generation, Revision: revision,
		LastError: "exit code 1",
	}
}

func byID(records []*pb.Instance) map[string]*pb.Instance {
	m := make(map[string]*pb.Instance, len(records))
	for _, r := range records {
		m[r.GetInstanceId()] = r
	}
	return m
}

func sameRecords(a, b map[string]*pb.Instance) bool {
	return maps.EqualFunc(a, b, func(x, y *pb.Instance) bool { return proto.Equal(x, y) })
}

func describe(records map[string]*pb.Instance) string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(records)) {
		all = append(all, fmt.Sprintf("%s/%d/%d", id, records[id].GetGeneration(), records[id].GetRevision()))
	}
	return strings.Join(all, " ")
}

// testing.TB and rapid.T have this in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func open(t tester, cfg Config) (*Journal, Recovered) {
	t.Helper()
	j, found, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return j, found
}

// run runs a journal until stop is called, which returns what Run did.
func run(j *Journal) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// start opens a journal and runs it to the end of the test.
func start(t testing.TB, cfg Config) (*Journal, Recovered, func()) {
	t.Helper()
	j, found := open(t, cfg)
	end := run(j)
	stop := func() {
		t.Helper()
		if err := end(); err != nil {
			t.Fatalf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return j, found, stop
}

func wait(t tester, ticket Ticket) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := ticket.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

// logged collects log records.
type logged struct {
	slog.Handler
	mu    sync.Mutex
	lines []slog.Record
}

func newLogged() *logged { return &logged{Handler: slog.DiscardHandler} }

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r)
	return nil
}

func (l *logged) at(level slog.Level) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.lines {
		if r.Level == level {
			n++
		}
	}
	return n
}

func TestReopenedJournalHoldsWhatWasPutLast(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "of", "an", "agent")}
	j, found, stop := start(t, cfg)
	if len(found.Records) != 0 || len(found.Damage) != 0 || len(found.Meta) != 0 {
		t.Fatalf("a new journal holds %v", found)
	}
	j.Put(record("a", 0, 1))
	wait(t, j.Put(record("a", 0, 2)))
	j.Put(record("b", 3, 1))
	j.Put(record("b", 2, 9)) // too late
	j.Put(record("c", 1, 1))
	wait(t, j.Remove("c", 1))
	j.Put(record("d", 5, 1))
	j.Remove("d", 4) // not that one
	j.Put(record("e", 5, 1))
	j.Remove("e", 5)
	j.Put(record("e", 1, 7)) // nothing is held any more
	j.SetMeta("epoch", []byte{6})
	j.SetMeta("epoch", []byte{7})
	j.SetMeta("", nil)
	stop()

	_, found, _ = start(t, cfg)
	want := byID([]*pb.Instance{record("a", 0, 2), record("b", 3, 1), record("d", 5, 1), record("e", 1, 7)})
	if got := byID(found.Records); !sameRecords(got, want) {
		t.Fatalf("holds %s, want %s", describe(got), describe(want))
	}
	if string(found.Meta["epoch"]) != "\x07" || len(found.Meta) != 2 || len(found.Damage) != 0 {
		t.Fatalf("meta %v, damage %v", found.Meta, found.Damage)
	}
}

func TestEntriesBeforeRunAreWrittenByIt(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	j, _ := open(t, cfg)
	ticket := j.Put(record("a", 0, 1))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the caller left")
	cancel(cause)
	if err := ticket.Wait(ctx); !errors.Is(err, cause) {
		t.Fatalf("waited for nobody: %v", err)
	}
	stop := run(j)
	wait(t, ticket)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestAfterRunNothingIsTaken(t *testing.T) {
	j, _, stop := start(t, Config{Dir: t.TempDir()})
	before := j.Put(record("a", 0, 1))
	stop()
	wait(t, before)
	for _, ticket := range []Ticket{j.Put(record("b", 0, 1)), j.Remove("a", 0), j.SetMeta("k", nil)} {
		if err := ticket.Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestWhatCanNotBeEncodedIsRefusedAlone(t *testing.T) {
	log := newLogged()
	j, _, _ := start(t, Config{Dir: t.TempDir(), Log: slog.New(log)})
	broken := record("b", 0, 1)
	broken.LastError = "\xff is not UTF-8"
	huge := record("h", 0, 1)
	huge.LastError = strings.Repeat("x", maxPayload)
	for _, rec := range []*pb.Instance{broken, huge, {}, nil} {
		if err := j.Put(rec).Wait(t.Context()); err == nil {
			t.Fatalf("%.100v was taken", rec)
		}
	}
	if n := log.at(slog.LevelError); n != 4 {
		t.Fatalf("%d errors logged", n)
	}
	wait(t, j.Put(record("a", 0, 1)))
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{{}, {Dir: "d", CompactAbove: -1}, {Dir: "d", Retry: -1}, {Dir: "d", FlushTimeout: -1}} {
		if _, _, err := Open(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// model is what a journal promises, without a disk.
type model struct {
	records map[string]*pb.Instance
	meta    map[string]string
}

func (m *model) put(rec *pb.Instance) {
	if m.records[rec.GetInstanceId()].GetGeneration() <= rec.GetGeneration() {
		m.records[rec.GetInstanceId()] = rec
	}
}

func (m *model) remove(id string, generation uint64) {
	if m.records[id].GetGeneration() <= generation {
		delete(m.records, id)
	}
}

func TestPropertyReopenedJournalEqualsAMap(t *testing.T) {
	tempDir := t.TempDir
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Dir: tempDir(), CompactAbove: rapid.Int64Range(1, 4000).Draw(t, "compact above")}
		id := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		generation := rapid.Uint64Range(0, 3)
		m := model{records: map[string]*pb.Instance{}, meta: map[string]string{}}
		j, _ := open(t, cfg)
		stop := run(j)
		revision := uint64(0)
		reopen := func(t *rapid.T) {
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var found Recovered
			j, found = open(t, cfg)
			stop = run(j)
			if got := byID(found.Records); !sameRecords(got, m.records) {
				t.Fatalf("holds %s, want %s", describe(got), describe(m.records))
			}
			if !maps.EqualFunc(found.Meta, m.meta, func(x []byte, y string) bool { return string(x) == y }) {
				t.Fatalf("meta %q, want %q", found.Meta, m.meta)
			}
			if len(found.Damage) != 0 {
				t.Fatalf("damage %v", found.Damage)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				revision++
				rec := record(id.Draw(t, "id"), generation.Draw(t, "generation"), revision)
				m.put(rec)
				j.Put(rec)
			},
			"remove": func(t *rapid.T) {
				id, g := id.Draw(t, "id"), generation.Draw(t, "generation")
				m.remove(id, g)
				j.Remove(id, g)
			},
			"meta": func(t *rapid.T) {
				name, value := id.Draw(t, "name"), rapid.String().Draw(t, "value")
				m.meta[name] = value
				j.SetMeta(name, []byte(value))
			},
			"wait":   func(t *rapid.T) { wait(t, j.SetMeta("waited", nil)); m.meta["waited"] = "" },
			"reopen": reopen,
		})
		reopen(t)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}
