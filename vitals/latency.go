package vitals

import (
	"math/bits"
	"time"
)

// Buckets is how many buckets a [Latency] has: two for each doubling, from 1 µs to 17 s and beyond.
const Buckets = 50

// finest is the width of the narrowest bucket but the first.
const finest = 500 * time.Nanosecond

// Latency is how many calls took how long: bucket 0 is below 1 µs, the others begin at 1, 1.5, 2, 3, 4, 6, 8 µs and so on.
type Latency [Buckets]float64

// bucket returns where a call belongs that took so long.
func bucket(took time.Duration) int {
	n := uint64(max(took, 0) / finest)
	octave := bits.Len64(n) - 2 // the doublings above 1 µs
	if octave < 0 {
		return 0
	}
	half := int(n>>octave) & 1
	return min(1+2*octave+half, Buckets-1)
}

// lower returns where a bucket begins.
func lower(bucket int) time.Duration {
	if bucket == 0 {
		return 0
	}
	octave, half := (bucket-1)/2, (bucket-1)%2
	return time.Duration(2+half) << octave * finest
}

// Total is how many calls there are.
func (l *Latency) Total() (n float64) {
	for _, some := range l {
		n += some
	}
	return n
}

// Quantile returns how long the quickest calls took at the most, q of 1 of all; false where there were none. It is at most half
// off: within its bucket it is a guess.
func (l *Latency) Quantile(q float64) (_ time.Duration, ok bool) {
	total := l.Total()
	if total <= 0 {
		return 0, false
	}
	rank, last := q*total, 0
	for b, some := range l {
		if some <= 0 {
			continue
		}
		if rank <= some {
			from, to := lower(b), lower(b+1)
			return from + time.Duration(rank/some*float64(to-from)), true
		}
		rank -= some
		last = b
	}
	return lower(last + 1), true // what is left is of rounding
}
