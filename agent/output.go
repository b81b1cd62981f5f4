package agent

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// outputLimits bounds the output of each instance.
type outputLimits struct {
	bytes int // what a ring takes
	rate  int // bytes a second, in the long run
	burst int // bytes at once
}

// output is what one instance wrote: its ring, lines that are not complete yet, and its followers.
//
// A guest that writes never waits: not for a follower, which reads from the ring in its own time,
// and not for its own flood, which is dropped where it exceeds the rate, with a line that says so.
type output struct {
	limits *outputLimits

	mu      sync.Mutex // guards what follows
	ring    ring
	partial [2][]byte // by stream: the start of a line
	bucket  bucket
	dropped int           // bytes since the last line that told of them
	wake    chan struct{} // closed at the next change; nil while nobody waits
	closed  bool
}

func newOutput(limits *outputLimits) *output {
	return &output{limits: limits, ring: ring{limit: limits.bytes}}
}

// writer is one stream of an output.
type writer struct {
	out    *output
	stream byte
}

var _ io.Writer = writer{}

func (o *output) stdout() io.Writer { return writer{o, streamStdout} }
func (o *output) stderr() io.Writer { return writer{o, streamStderr} }

// Write keeps whole lines, remembers the start of the last, and never fails.
func (w writer) Write(p []byte) (int, error) {
	o := w.out
	now := time.Now()
	longest := maxLine(o.limits.bytes)

	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return len(p), nil
	}
	before := o.ring.last()
	for rest := p; len(rest) > 0; {
		held := o.partial[w.stream]
		n := bytes.IndexByte(rest, '\n')
		whole := n >= 0 && len(held)+n <= longest
		if !whole {
			n = min(len(rest), longest-len(held))
		}
		line := rest[:n]
		rest = rest[n:]
		if len(held) > 0 || !whole && len(rest) == 0 {
			held = append(held, line...)
			line = held
			o.partial[w.stream] = held
		}
		switch {
		case whole:
			rest = rest[1:]
		case len(rest) == 0:
			continue // the rest of the line may come
		}
		o.keepLocked(now, w.stream, line)
		o.resetPartialLocked(w.stream)
	}
	if o.ring.last() != before {
		o.wakeLocked()
	}
	return len(p), nil
}

// flush keeps the lines that were not completed: the guest that wrote them has ended.
func (o *output) flush() {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for stream, line := range o.partial {
		if len(line) > 0 {
			o.keepLocked(now, byte(stream), line)
			o.partial[stream] = nil
		}
	}
	o.tellDroppedLocked(now)
	o.wakeLocked()
}

// close ends the output: followers get the rest and then the end.
func (o *output) close() {
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.wakeLocked()
}

// read returns entries after seq, of about so many bytes, the seq of the oldest entry still kept,
// and, if there is nothing more to read now, whether the output is closed or else a channel that is
// closed once there may be more.
func (o *output) read(after uint64, bytes int) (lines []logLine, oldest uint64, more <-chan struct{}, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines = o.ring.read(after, bytes)
	if len(lines) == 0 && !o.closed {
		if o.wake == nil {
			o.wake = make(chan struct{})
		}
		more = o.wake
	}
	return lines, o.ring.first(), more, o.closed
}

// last is the seq of the newest entry.
func (o *output) last() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ring.last()
}

func (o *output) keepLocked(now time.Time, stream byte, line []byte) {
	if !o.bucket.take(now, len(line)+entryOverhead, o.limits) {
		if o.dropped == 0 { // said at once: a reader in the midst of a flood must see why there is no more
			o.ring.append(now, streamAgent, fmt.Appendf(nil,
				"output is dropped from here on: the instance writes more than %d bytes a second", o.limits.rate))
		}
		o.dropped += len(line) + 1
		return
	}
	o.tellDroppedLocked(now)
	o.ring.append(now, stream, line)
}

func (o *output) tellDroppedLocked(now time.Time) {
	if o.dropped > 0 {
		o.ring.append(now, streamAgent, fmt.Appendf(nil, "%d bytes of output were dropped here", o.dropped))
		o.dropped = 0
	}
}

func (o *output) resetPartialLocked(stream byte) {
	if cap(o.partial[stream]) > 1024 { // thousands of idle instances must not each keep their longest line
		o.partial[stream] = nil
		return
	}
	o.partial[stream] = o.partial[stream][:0]
}

func (o *output) wakeLocked() {
	if o.wake != nil {
		close(o.wake)
		o.wake = nil
	}
}

// bucket is a token bucket that, once empty, stays shut until a second's worth has come in: a flood
// is cut into whole stretches with a gap between them, rather than into single lines.
type bucket struct {
	tokens int
	at     time.Time // of the last refill; zero for a bucket never used, which is full
	shut   bool
}

func (b *bucket) take(now time.Time, n int, limits *outputLimits) bool {
	if b.at.IsZero() {
		b.tokens, b.at = limits.burst, now
	}
	if elapsed := now.Sub(b.at); elapsed > 0 {
		// A minute fills any bucket; more would only overflow.
		refill := int(min(elapsed, time.Minute).Seconds() * float64(limits.rate))
		if refill > 0 {
			b.tokens, b.at = min(b.tokens+refill, limits.burst), now
		}
	}
	if b.shut && b.tokens < min(limits.rate, limits.burst) || b.tokens < n {
		b.shut = true
		return false
	}
	b.shut = false
	b.tokens -= n
	return true
}
