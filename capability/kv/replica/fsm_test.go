package replica

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

func emptyFSM(t testing.TB, dir string) *fsm {
	t.Helper()
	f, err := newFSM(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func shut(f *fsm) { _ = f.close() }

// model is what the state machine is to do, in the plainest way.
type model struct {
	keys  map[string]record
	calls map[CallID]answer
}

func (m *model) apply(c command, index uint64) answer {
	if a, ok := m.calls[c.CallID]; ok {
		return a
	}
	now := c.Now
	if c.Op == opSweep {
		n := 0
		for at, r := range m.keys {
			if r.expired(now) {
				delete(m.keys, at)
				n++
			}
		}
		return answer{Number: uint64(n)}
	}
	at := string(path(c.Provider, c.Bucket, c.Key))
	old, there := m.keys[at]
	if there && old.expired(now) {
		delete(m.keys, at)
		old, there = record{}, false
	}
	var a answer
	switch {
	case c.IfRevision != nil && *c.IfRevision != old.Revision:
		a = answer{conflict, old.Revision}
	case c.Op == opSet:
		m.keys[at] = record{index, expiresAfter(now, int64(c.TTL)), c.Value}
		a.Number = index
	case c.Op == opDelete:
		delete(m.keys, at)
		if there {
			a.Number = 1
		}
	case c.Op == opIncrement:
		if !there {
			old.Value = []byte("0")
		}
		sum, err := decimal.Add(old.Value, c.By)
		switch {
		case errors.Is(err, decimal.ErrOverflow):
			a.Code = overflow
		case err != nil:
			a.Code = notNumber
		default:
			m.keys[at] = record{index, old.Expires, strconv.AppendInt(nil, sum, 10)}
			a.Number = uint64(sum)
		}
	}
	m.calls[c.CallID] = a
	return a
}

// dump returns all that an FSM holds.
func dump(t *rapid.T, f *fsm) map[string]record {
	all := map[string]record{}
	size := int64(0)
	expiring := 0
	err := f.view(func(p page) error {
		c := p.records.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			r := decodeRecord(bytes.Clone(v))
			all[string(k)] = r
			size += int64(len(k) + len(v))
			if r.Expires != forever {
				expiring++
			}
		}
		c = p.expiry.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			expiring--
			if r, ok := all[string(k[8:])]; !ok || !bytes.Equal(expiryKey(r.Expires, k[8:]), k) {
				t.Errorf("the times name %q, which is %+v", k, r)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if size != f.store.size || expiring != 0 {
		t.Errorf("%d bytes are counted and %d there; %d times are missing", f.store.size, size, expiring)
	}
	return all
}

func sameRecords(a, b map[string]record) bool {
	return maps.EqualFunc(a, b, func(a, b record) bool {
		return a.Revision == b.Revision && a.Expires == b.Expires && bytes.Equal(a.Value, b.Value)
	})
}

// commands draws commands whose clock goes forwards, of which some are repeated.
func commands(t *rapid.T, now int64) []command {
	keys := rapid.SampledFrom([]string{"a", "aa", "b", "a\x00", "é"})
	var all []command
	for n := range rapid.IntRange(1, 40).Draw(t, "commands") {
		if n > 0 && rapid.IntRange(0, 5).Draw(t, "again") == 0 {
			again := all[rapid.IntRange(0, n-1).Draw(t, "which")]
			again.Now = now
			all = append(all, again)
			continue
		}
		now += rapid.Int64Range(0, int64(time.Second)).Draw(t, "pause")
		c := command{
			Op:     rapid.SampledFrom([]operation{opSet, opSet, opDelete, opIncrement, opSweep}).Draw(t, "operation"),
			CallID: NewCallID(), Now: now,
		}
		if c.Op == opSweep {
			c.CallID = CallID{}
			c.Limit = 1000
			all = append(all, c)
			continue
		}
		c.Provider, c.Bucket = rapid.SampledFrom([]string{"p", "pp"}).Draw(t, "provider"), rapid.SampledFrom([]string{"b", "bb"}).Draw(t, "bucket")
		c.Key = keys.Draw(t, "key")
		if c.Op != opIncrement && rapid.Bool().Draw(t, "conditional") {
			r := rapid.Uint64Range(0, 41).Draw(t, "revision")
			c.IfRevision = &r
		}
		switch c.Op {
		case opSet:
			c.TTL = time.Duration(rapid.SampledFrom([]int64{0, 1, int64(time.Second), int64(3 * time.Second), math.MaxInt64}).Draw(t, "ttl"))
			c.Value = []byte(rapid.SampledFrom([]string{"", "x", "1", "9223372036854775807"}).Draw(t, "value"))
		case opIncrement:
			c.By = rapid.SampledFrom([]int64{1, -1, math.MaxInt64, math.MinInt64}).Draw(t, "by")
		}
		all = append(all, c)
	}
	return all
}

func TestStateMachineDoesWhatItsModelDoes(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		f := emptyFSM(t, dir)
		defer shut(f)
		m := &model{keys: map[string]record{}, calls: map[CallID]answer{}}
		all := commands(rt, time.Now().UnixNano())
		for done := 0; done < len(all); {
			batch := all[done : done+rapid.IntRange(1, len(all)-done).Draw(rt, "batch")]
			var logs []*raft.Log
			var want []answer
			for n, c := range batch {
				index := uint64(done + n + 1)
				logs = append(logs, &raft.Log{Index: index, Type: raft.LogCommand, Data: c.encode()})
				want = append(want, m.apply(c, index))
			}
			for n, got := range f.ApplyBatch(logs) {
				if got != want[n] {
					rt.Fatalf("command %d, %+v: %+v, want %+v", done+n, batch[n], got, want[n])
				}
			}
			done += len(batch)
		}
		if got := dump(rt, f); !sameRecords(got, m.keys) {
			rt.Fatalf("it holds %+v, want %+v", got, m.keys)
		}
	})
}

type memorySink struct {
	bytes.Buffer
	canceled bool
}

func (*memorySink) ID() string      { return "" }
func (*memorySink) Close() error    { return nil }
func (s *memorySink) Cancel() error { s.canceled = true; return nil }

func snapshotOf(t testing.TB, f *fsm) []byte {
	t.Helper()
	s, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var sink memorySink
	if err := s.Persist(&sink); err != nil || sink.canceled {
		t.Fatal(err)
	}
	return sink.Bytes()
}

func TestRestoredSnapshotIsTheSameState(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		f, g := emptyFSM(t, dir), emptyFSM(t, dir)
		defer shut(f)
		defer shut(g)
		all := commands(rt, time.Now().UnixNano())
		cut := rapid.IntRange(0, len(all)).Draw(rt, "snapshot after")
		apply := func(f *fsm, from int, all []command) (answers []any) {
			for n, c := range all {
				answers = append(answers, f.Apply(&raft.Log{Index: uint64(from + n + 1), Type: raft.LogCommand, Data: c.encode()}))
			}
			return answers
		}
		apply(f, 0, all[:cut])
		apply(g, 0, commands(rt, 0)) // what was there before is forgotten
		taken := snapshotOf(t, f)
		if err := g.Restore(io.NopCloser(bytes.NewReader(taken))); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(snapshotOf(t, g), taken) {
			rt.Fatal("the snapshot of what was restored differs")
		}
		// And it goes on alike, repetitions included.
		again := slices.Concat(all[:cut], all[cut:])
		if a, b := apply(f, cut, again), apply(g, cut, again); !slices.Equal(a, b) {
			rt.Fatalf("from there on, one answers %v and the other %v", a, b)
		}
		if !sameRecords(dump(rt, f), dump(rt, g)) {
			rt.Fatal("from there on, the two differ")
		}
	})
}

func TestDamagedSnapshotChangesNothing(t *testing.T) {
	f := emptyFSM(t, t.TempDir())
	defer shut(f)
	for i := range 10 {
		c := command{Op: opSet, CallID: NewCallID(), Provider: "p", Bucket: "b", Key: strconv.Itoa(i), Value: []byte("v")}
		f.Apply(&raft.Log{Index: uint64(i + 1), Type: raft.LogCommand, Data: c.encode()})
	}
	whole := snapshotOf(t, f)
	for cut := range whole {
		if err := f.Restore(io.NopCloser(bytes.NewReader(whole[:cut]))); err == nil {
			t.Fatalf("a snapshot of %d bytes was taken for whole when %d were left", len(whole), cut)
		}
	}
	if !bytes.Equal(snapshotOf(t, f), whole) {
		t.Error("the state is another one")
	}
}

func TestCallIDOfAnotherCallIsRefused(t *testing.T) {
	f := emptyFSM(t, t.TempDir())
	defer shut(f)
	c := command{Op: opSet, CallID: NewCallID(), Provider: "p", Bucket: "b", Key: "k", Value: []byte("v")}
	f.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: c.encode()})
	c.Key = "other"
	if a := f.Apply(&raft.Log{Index: 2, Type: raft.LogCommand, Data: c.encode()}); a != (answer{Code: otherCall}) {
		t.Errorf("it is answered %+v", a)
	}
}

func TestOnlyTheNewestCallsAreRemembered(t *testing.T) {
	c := newCalls(4)
	var ids []CallID
	for n := range 10 {
		id := NewCallID()
		ids = append(ids, id)
		c.add(call{ID: id, Answer: answer{Number: uint64(n)}})
		c.add(call{Answer: answer{Number: 100}}) // one without a number
	}
	for n, id := range ids {
		got, ok := c.find(id)
		if ok != (n >= 6) || ok && got.Answer.Number != uint64(n) {
			t.Errorf("call %d is remembered: %v, %+v", n, ok, got)
		}
	}
	var order []uint64
	for _, one := range c.all() {
		order = append(order, one.Answer.Number)
	}
	if len(c.at) != 4 || !slices.Equal(order, []uint64{6, 7, 8, 9}) {
		t.Errorf("%d are indexed, in the order %v", len(c.at), order)
	}
}

// Commands of one moment come in any order, and clocks are set back.
func TestTimeDoesNotRunBackwardsForAMoment(t *testing.T) {
	s := int64(time.Second)
	for _, test := range []struct{ newest, now, want int64 }{
		{10 * s, 10*s - 1, 10 * s}, {10 * s, 9 * s, 10 * s}, {10 * s, 9*s - 1, 9*s - 1}, {10 * s, 11 * s, 11 * s}, {0, 5 * s, 5 * s},
	} {
		if got := reading(test.newest, test.now); got != test.want {
			t.Errorf("after %d, %d is %d, want %d", test.newest, test.now, got, test.want)
		}
	}
}

func TestBrokenStoreRefusesAllAndSaysSo(t *testing.T) {
	f := emptyFSM(t, t.TempDir())
	if err := f.store.Close(); err != nil { // as a disk would that is full: nothing can be written
		t.Fatal(err)
	}
	c := command{Op: opSet, Provider: "p", Bucket: "b", Key: "k"}
	for range 2 {
		if a := f.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: c.encode()}); a != (answer{Code: storeBroke}) {
			t.Errorf("it is answered %+v", a)
		}
	}
	select {
	case <-f.broke:
	default:
		t.Error("nobody is told")
	}
	if _, err := f.Snapshot(); err == nil {
		t.Error("a snapshot of a broken store was taken")
	}
}

func TestCommandsAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, c := range commands(t, 0) {
			got, err := decode(c.encode())
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			if !bytes.Equal(got.encode(), c.encode()) || got.CallID != c.CallID || got.Key != c.Key || !bytes.Equal(got.Value, c.Value) {
				t.Fatalf("%+v became %+v", c, got)
			}
		}
	})
}

func FuzzCommand(f *testing.F) {
	seven := uint64(7)
	for _, c := range []command{
		{Op: opSet, Provider: "p", Bucket: "b", Key: "k", TTL: time.Second, IfRevision: &seven, Value: []byte("v")},
		{Op: opDelete, Provider: "p", Bucket: "b", Key: "k"}, {Op: opIncrement, Provider: "p", Bucket: "b", Key: "k", By: -5}, {Op: opSweep, Limit: 3},
	} {
		f.Add(c.encode())
	}
	f.Add([]byte{})
	f.Add([]byte{commandVersion + 1, byte(opSet)})
	state := emptyFSM(f, f.TempDir())
	f.Cleanup(func() { _ = state.close() })
	index := uint64(0)
	f.Fuzz(func(t *testing.T, raw []byte) {
		index++
		c, err := decode(raw)
		a, ok := state.Apply(&raft.Log{Index: index, Type: raft.LogCommand, Data: raw}).(answer)
		if !ok || (err != nil) != (a.Code == refused) || a.Code == storeBroke {
			t.Fatalf("%x is %+v, %v, and answered %+v", raw, c, err, a)
		}
		if err == nil && (len(c.Key) > capability.MaxKey || len(c.Value) > capability.MaxValue) {
			t.Errorf("a key of %d bytes, a value of %d", len(c.Key), len(c.Value))
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	state := emptyFSM(f, f.TempDir())
	f.Cleanup(func() { _ = state.close() })
	f.Add(snapshotOf(f, state))
	c := command{Op: opSet, CallID: NewCallID(), Provider: "p", Bucket: "b", Key: "k", TTL: time.Hour, Value: []byte("v")}
	state.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: c.encode()})
	f.Add(snapshotOf(f, state))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := state.Restore(io.NopCloser(bytes.NewReader(raw))); err != nil {
			return
		}
		_ = snapshotOf(t, state)
	})
}
