package vitals

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestEachCallIsInTheBucketThatHoldsItsTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := time.Duration(rapid.Int64Range(-5, math.MaxInt64).Draw(t, "took"))
		if rapid.Bool().Draw(t, "short") {
			took %= 20 * time.Second
		}
		b := bucket(took)
		if b > 0 && took < lower(b) || b < Buckets-1 && took >= lower(b+1) {
			t.Fatalf("%s is in bucket %d, from %s to %s", took, b, lower(b), lower(b+1))
		}
	})
}

// A quantile is a guess within a bucket, and no bucket is wider than half of what is in it.
func TestQuantilesAreAtMostHalfOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(int64(time.Microsecond), int64(10*time.Second)), 1, 300).Draw(t, "calls")
		var l Latency
		for _, took := range all {
			l[bucket(time.Duration(took))]++
		}
		slices.Sort(all)
		for _, q := range []float64{0.01, 0.5, 0.99, 1} {
			want := time.Duration(all[int(math.Ceil(q*float64(len(all))))-1])
			got, ok := l.Quantile(q)
			if !ok || got < want*2/3 || got > want*3/2 {
				t.Fatalf("the quantile %v of %v is %s, %t; want about %s", q, all, got, ok, want)
			}
		}
	})
}

func TestNoCallsHaveNoQuantile(t *testing.T) {
	var l Latency
	if got, ok := l.Quantile(0.5); ok {
		t.Errorf("it is %s", got)
	}
}
