package agent

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var roomy = &outputLimits{bytes: 1 << 20, rate: 1 << 20, burst: 4 << 20}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if n, err := io.WriteString(w, text); n != len(text) || err != nil {
		t.Fatalf("write of %d bytes: %d, %v", len(text), n, err)
	}
}

func lines(o *output) []string {
	kept, _, _, _ := o.read(0, 1<<30)
	var all []string
	for _, l := range kept {
		all = append(all, streamNames[l.stream]+" "+string(l.line))
	}
	return all
}

func wantLines(t *testing.T, o *output, want ...string) {
	t.Helper()
	if got := lines(o); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("lines are %q, want %q", got, want)
	}
}

func TestOutputKeepsLinesByStream(t *testing.T) {
	o := newOutput(roomy)
	write(t, o.stdout(), "one\ntw")
	write(t, o.stderr(), "oops\n\nhalf")
	wantLines(t, o, "stdout one", "stderr oops", "stderr ")
	write(t, o.stdout(), "o\nthree")
	wantLines(t, o, "stdout one", "stderr oops", "stderr ", "stdout two")
	o.close()
	wantLines(t, o, "stdout one", "stderr oops", "stderr ", "stdout two", "stdout three", "stderr half")
	write(t, o.stdout(), "too late\n")
	if n := len(lines(o)); n != 6 {
		t.Fatalf("%d lines after the end, want 6", n)
	}
}

func TestOutputSplitsLongLines(t *testing.T) {
	longest := maxLine(roomy.bytes)
	o := newOutput(roomy)
	write(t, o.stdout(), strings.Repeat("a", longest)+"\n"+strings.Repeat("b", 2*longest+1)+"\nc\n")
	kept, _, _, _ := o.read(0, 1<<30)
	var lengths []int
	for _, l := range kept {
		lengths = append(lengths, len(l.line))
	}
	if fmt.Sprint(lengths) != fmt.Sprint([]int{longest, longest, longest, 1, 1}) {
		t.Fatalf("lengths are %v", lengths)
	}
}

// TestOutputDependsNotOnHowItIsWritten says that the pieces of a guest's writes leave no trace.
func TestOutputDependsNotOnHowItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := &outputLimits{bytes: 1 << 20, rate: 1 << 30, burst: 1 << 30}
		if rapid.Bool().Draw(t, "small") {
			limits.bytes = 4 << 10
		}
		var text []byte
		for range rapid.IntRange(0, 20).Draw(t, "lines") {
			text = append(text, bytes.Repeat([]byte("x"), rapid.IntRange(0, 1500).Draw(t, "length"))...)
			if rapid.Bool().Draw(t, "newline") {
				text = append(text, '\n')
			}
		}
		whole, pieces := newOutput(limits), newOutput(limits)
		_, _ = whole.stdout().Write(text)
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			_, _ = pieces.stdout().Write(rest[:n])
			rest = rest[n:]
		}
		whole.close()
		pieces.close()
		a, b := lines(whole), lines(pieces)
		if strings.Join(a, "\n") != strings.Join(b, "\n") {
			t.Fatalf("written at once %q, in pieces %q", a, b)
		}
	})
}

func TestFloodIsCutAndSaidSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := &outputLimits{bytes: 1 << 20, rate: 1000, burst: 4000}
		o := newOutput(limits)
		line := strings.Repeat("x", 99-entryOverhead) + "\n"
		flood := func(d time.Duration) { // at ten times the rate
			for range int(d / (10 * time.Millisecond)) {
				write(t, o.stdout(), line)
				time.Sleep(10 * time.Millisecond)
			}
		}
		flood(10 * time.Second)
		var kept, told int
		for _, l := range lines(o) {
			if strings.HasPrefix(l, "wasmatrix ") {
				told++
			} else {
				kept += 100
			}
		}
		if kept < 10_000 || kept > 15_000 {
			t.Fatalf("%d bytes were kept of 10 s at 1000 a second with 4000 at once", kept)
		}
		if told < 2 || told > 20 {
			t.Fatalf("%d lines tell of what was dropped, want about two a second", told)
		}
		time.Sleep(5 * time.Second) // calm: the bucket fills again
		before := len(lines(o))
		write(t, o.stdout(), "calm\n")
		after := lines(o)[before:]
		if len(after) != 2 || !strings.Contains(after[0], "bytes of output were dropped here") || after[1] != "stdout calm" {
			t.Fatalf("after the flood: %q", after)
		}
	})
}

func TestDroppedOutputIsToldAtTheEnd(t *testing.T) {
	o := newOutput(&outputLimits{bytes: 1 << 20, rate: 10, burst: 10})
	write(t, o.stdout(), "a line longer than the bucket\n")
	o.close()
	wantLines(t, o,
		"wasmatrix output is dropped from here on: the instance writes more than 10 bytes a second",
		"wasmatrix 30 bytes of output were dropped here")
}

func TestFollowersSeeEverythingAndTheEnd(t *testing.T) {
	o := newOutput(roomy)
	const count = 2000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var after uint64
			for {
				kept, _, more, closed := o.read(after, 1000)
				for _, l := range kept {
					if l.seq != after+1 {
						t.Errorf("entry %d came after %d", l.seq, after)
					}
					after = l.seq
				}
				if len(kept) > 0 {
					continue
				}
				if closed {
					break
				}
				<-more
			}
			if after != count {
				t.Errorf("a follower saw %d entries, want %d", after, count)
			}
		})
	}
	var writers sync.WaitGroup
	for _, w := range []io.Writer{o.stdout(), o.stderr()} {
		writers.Go(func() {
			for n := range count / 2 {
				_, _ = fmt.Fprintf(w, "line %d\n", n)
			}
		})
	}
	writers.Wait()
	o.close()
	wg.Wait()
}
