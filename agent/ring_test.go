package agent

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRingHasNoMemoryBeforeTheFirstLineAndLittleAfterIt(t *testing.T) {
	r := ring{limit: 1 << 20}
	if r.size != 0 || r.blocks != nil {
		t.Fatalf("an empty ring has %d bytes", r.size)
	}
	r.append(time.Now(), streamStdout, []byte("hello"))
	if r.size != firstBlock {
		t.Fatalf("one line takes %d bytes, want %d", r.size, firstBlock)
	}
}

// TestRingKeepsTheNewestLines states what a ring is: its content is the newest entries of what was
// appended, in order, unchanged, without a gap, within its limit, and at least half of it.
func TestRingKeepsTheNewestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(4<<10, 64<<10).Draw(t, "limit")
		r := ring{limit: limit}
		var all []logLine
		for range rapid.IntRange(0, 400).Draw(t, "lines") {
			n := rapid.IntRange(0, maxLine(limit)).Draw(t, "length")
			if rapid.Bool().Draw(t, "short") {
				n = min(n, 80)
			}
			l := logLine{
				seq:    uint64(len(all) + 1),
				time:   time.Unix(0, rapid.Int64Range(0, 1<<60).Draw(t, "time")),
				stream: rapid.SampledFrom([]byte{streamStdout, streamStderr, streamAgent}).Draw(t, "stream"),
				line:   bytes.Repeat([]byte{byte(len(all))}, n),
			}
			if got := r.append(l.time, l.stream, l.line); got != l.seq {
				t.Fatalf("entry %d got the seq %d", l.seq, got)
			}
			all = append(all, l)
			total := 0
			for _, b := range r.blocks {
				total += cap(b.data)
			}
			if total != r.size || total > limit {
				t.Fatalf("blocks of %d bytes, %d by its own count, the limit is %d", total, r.size, limit)
			}
		}
		kept := r.read(0, 1<<30)
		if len(kept) == 0 && len(all) > 0 {
			t.Fatal("nothing was kept")
		}
		want := all[len(all)-len(kept):]
		size := 0
		for n := range kept {
			if !equalLines(kept[n], want[n]) {
				t.Fatalf("entry %d is %+v, want %+v", n, kept[n], want[n])
			}
			size += entryOverhead + len(kept[n].line)
		}
		if len(kept) < len(all) && size < limit/2 {
			t.Fatalf("only %d bytes were kept of a limit of %d", size, limit)
		}
		if len(kept) > 0 && r.first() != kept[0].seq {
			t.Fatalf("first says %d, but %d is there", r.first(), kept[0].seq)
		}

		// Whoever reads in pieces of any size, from anywhere, sees the same.
		after := rapid.Uint64Range(0, uint64(len(all))).Draw(t, "after")
		var pieces []logLine
		for at := after; ; {
			some := r.read(at, rapid.IntRange(0, 4096).Draw(t, "piece"))
			if len(some) == 0 {
				break
			}
			pieces = append(pieces, some...)
			at = some[len(some)-1].seq
		}
		for len(kept) > 0 && kept[0].seq <= after {
			kept = kept[1:]
		}
		if len(pieces) != len(kept) {
			t.Fatalf("%d entries in pieces, %d at once", len(pieces), len(kept))
		}
		for n := range pieces {
			if !equalLines(pieces[n], kept[n]) {
				t.Fatalf("piece %d is %+v, want %+v", n, pieces[n], kept[n])
			}
		}
	})
}

func equalLines(a, b logLine) bool {
	return a.seq == b.seq && a.time.Equal(b.time) && a.stream == b.stream && bytes.Equal(a.line, b.line)
}

func BenchmarkRingFlood(b *testing.B) {
	r := ring{limit: 1 << 20}
	line := fmt.Appendf(nil, "%0100d", 1)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.append(now, streamStdout, line)
	}
}
