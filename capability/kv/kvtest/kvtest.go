package kvtest

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

// patience is how long a call may take, and how long a test waits for what must come.
const patience = 30 * time.Second

// Open returns the keys of a provider, in one store with all others that it opens.
type Open func(t *testing.T, providerID string) capability.KV

// Run has an engine show that it does what capability.KV says. Each test has a provider of its own.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"AKeyIsReadAsItWasWritten", readAsWritten},
		{"RevisionsRiseAndAreNeverZero", revisionsRise},
		{"WritesOnARevisionHappenOnItAlone", onRevision},
		{"DeletesSayWhatTheyFound", deletes},
		{"OneOfManyWinsARevision", race},
		{"IncrementsAddUp", incrementsAddUp},
		{"WhatIsNoNumberIsNotAddedTo", notNumbers},
		{"KeysExpire", expiry},
		{"AnIncrementLeavesTheTimeToLive", incrementKeepsTTL},
		{"AWriteReplacesTheTimeToLive", writeReplacesTTL},
		{"ListsAreInTheOrderOfBytes", lists},
		{"ListsHavePages", pages},
		{"PagesBearChanges", pagesUnderChange},
		{"KeysMayBeAnyText", weirdKeys},
		{"ValuesHaveALimit", largeValues},
		{"BadArgumentsAreRefused", badArguments},
		{"BucketsAndProvidersAreApart", apart},
		{"AnEndedContextEndsTheCall", endedContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			provider := "p-" + strings.ToLower(test.name)
			test.run(&suite{T: t, ctx: ctx, provider: provider, open: open, kv: open(t, provider)})
		})
	}
}

type suite struct {
	*testing.T
	ctx      context.Context
	provider string
	open     Open
	kv       capability.KV
}

const bucket = "bucket"

func (s *suite) set(key, value string, o capability.SetOptions) uint64 {
	s.Helper()
	revision, err := s.kv.Set(s.ctx, bucket, key, []byte(value), o)
	if err != nil {
		s.Fatalf("set %.40q: %v", key, err)
	}
	if revision == 0 {
		s.Errorf("set %.40q: revision 0", key)
	}
	return revision
}

func (s *suite) get(key string) capability.Entry {
	s.Helper()
	e, err := s.kv.Get(s.ctx, bucket, key)
	if err != nil {
		s.Fatalf("get %.40q: %v", key, err)
	}
	return e
}

func (s *suite) want(key, value string, revision uint64) {
	s.Helper()
	if e := s.get(key); string(e.Value) != value || e.Revision != revision {
		s.Errorf("%.40q holds %.40q at revision %d, want %.40q at %d", key, e.Value, e.Revision, value, revision)
	}
	if r, ok, err := s.kv.Exists(s.ctx, bucket, key); err != nil || !ok || r != revision {
		s.Errorf("exists %.40q: %d, %v, %v, want revision %d", key, r, ok, err, revision)
	}
}

func (s *suite) wantNone(key string) {
	s.Helper()
	_, err := s.kv.Get(s.ctx, bucket, key)
	s.wantStatus(err, capability.NotFound)
	if r, ok, err := s.kv.Exists(s.ctx, bucket, key); err != nil || ok || r != 0 {
		s.Errorf("exists %.40q: %d, %v, %v, want none", key, r, ok, err)
	}
}

func (s *suite) wantStatus(err error, want capability.Status) {
	s.Helper()
	if e, ok := errors.AsType[*capability.Error](err); !ok || e.Status != want {
		s.Errorf("it ends with %v, want %s", err, want)
	}
}

func (s *suite) wantKeys(prefix, after string, limit int, more bool, want ...string) {
	s.Helper()
	keys, left, err := s.kv.List(s.ctx, bucket, prefix, after, limit)
	if err != nil || left != more || !slices.Equal(keys, want) {
		s.Errorf("list %q after %q, %d at most: %q, more %v, %v; want %q, more %v", prefix, after, limit, keys, left, err, want, more)
	}
}

// eventually waits until something holds.
func (s *suite) eventually(what string, holds func() bool) {
	s.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-look.C:
		case <-deadline:
			s.Fatalf("waited %s for %s", patience, what)
		}
	}
}

func (s *suite) gone(key string) func() bool {
	return func() bool {
		_, ok, err := s.kv.Exists(s.ctx, bucket, key)
		if err != nil {
			s.Fatalf("exists %q: %v", key, err)
		}
		return !ok
	}
}

func at(revision uint64) capability.SetOptions {
	return capability.SetOptions{IfRevision: &revision}
}

func readAsWritten(s *suite) {
	s.wantNone("a")
	r := s.set("a", "one", capability.SetOptions{})
	s.want("a", "one", r)
	r = s.set("a", "", capability.SetOptions{})
	s.want("a", "", r)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	r = s.set("a", string(all), capability.SetOptions{})
	s.want("a", string(all), r)
	r = s.set("ab", string(all), capability.SetOptions{})
	s.want("ab", string(all), r)
	s.wantNone("A")
}

func revisionsRise(s *suite) {
	var last uint64
	for i := range 10 {
		r := s.set("a", "same", capability.SetOptions{})
		if r <= last {
			s.Errorf("write %d has revision %d after %d", i, r, last)
		}
		last = r
	}
	if _, err := s.kv.Delete(s.ctx, bucket, "a", nil); err != nil {
		s.Fatal(err)
	}
	// One who holds the revision of a key that was deleted and made again must not take it for the same.
	if r := s.set("a", "again", capability.SetOptions{}); r <= last {
		s.Errorf("a key that was made again has revision %d, and had %d before", r, last)
	}
	s.set("n", "1", capability.SetOptions{})
	before := s.get("n").Revision
	if _, err := s.kv.Increment(s.ctx, bucket, "n", 0); err != nil {
		s.Fatal(err)
	}
	if after := s.get("n").Revision; after <= before {
		s.Errorf("an increment left revision %d at %d", before, after)
	}
}

func onRevision(s *suite) {
	_, err := s.kv.Set(s.ctx, bucket, "a", []byte("x"), at(7))
	s.wantStatus(err, capability.Conflict)
	s.wantNone("a")
	r := s.set("a", "one", at(0))
	_, err = s.kv.Set(s.ctx, bucket, "a", []byte("x"), at(0))
	s.wantStatus(err, capability.Conflict)
	s.want("a", "one", r)
	next := s.set("a", "two", at(r))
	_, err = s.kv.Set(s.ctx, bucket, "a", []byte("x"), at(r))
	s.wantStatus(err, capability.Conflict)
	_, err = s.kv.Set(s.ctx, bucket, "a", []byte("x"), at(next+1000))
	s.wantStatus(err, capability.Conflict)
	_, err = s.kv.Set(s.ctx, bucket, "a", []byte("x"), at(math.MaxUint64))
	s.wantStatus(err, capability.Conflict)
	s.want("a", "two", next)
}

func deletes(s *suite) {
	del := func(key string, ifRevision *uint64, want bool) {
		s.Helper()
		if existed, err := s.kv.Delete(s.ctx, bucket, key, ifRevision); err != nil || existed != want {
			s.Errorf("delete %q: existed %v, %v, want %v", key, existed, err, want)
		}
	}
	del("a", nil, false)
	s.set("a", "x", capability.SetOptions{})
	del("aa", nil, false)
	del("a", nil, true)
	s.wantNone("a")
	del("a", nil, false)
	old := s.set("a", "x", capability.SetOptions{})
	r := s.set("a", "y", capability.SetOptions{})
	_, err := s.kv.Delete(s.ctx, bucket, "a", &old)
	s.wantStatus(err, capability.Conflict)
	s.want("a", "y", r)
	del("a", &r, true)
	_, err = s.kv.Delete(s.ctx, bucket, "a", &r)
	s.wantStatus(err, capability.Conflict)
	del("a", new(uint64), false)
	s.set("a", "z", at(0))
	_, err = s.kv.Delete(s.ctx, bucket, "a", new(uint64))
	s.wantStatus(err, capability.Conflict)
}

func race(s *suite) {
	const rounds, racers = 5, 8
	var r uint64
	for range rounds {
		var won atomic.Int64
		var winner atomic.Uint64
		var work sync.WaitGroup
		for n := range racers {
			work.Go(func() {
				now, err := s.kv.Set(s.ctx, bucket, "a", []byte(strconv.Itoa(n)), at(r))
				if err != nil {
					s.wantStatus(err, capability.Conflict)
					return
				}
				won.Add(1)
				winner.Store(now)
			})
		}
		work.Wait()
		if won.Load() != 1 {
			s.Fatalf("%d of %d won revision %d", won.Load(), racers, r)
		}
		r = winner.Load()
		if e := s.get("a"); e.Revision != r {
			s.Fatalf("the winner got revision %d, and the key is at %d", r, e.Revision)
		}
	}
}

func incrementsAddUp(s *suite) {
	const callers, times = 8, 15
	var work sync.WaitGroup
	sums := make([][]int64, callers)
	for n := range callers {
		work.Go(func() {
			for range times {
				sum, err := s.kv.Increment(s.ctx, bucket, "n", int64(n+1))
				if err != nil {
					s.Errorf("increment: %v", err)
					return
				}
				sums[n] = append(sums[n], sum)
			}
		})
	}
	work.Wait()
	const want = times * callers * (callers + 1) / 2
	if e := s.get("n"); string(e.Value) != strconv.Itoa(want) {
		s.Errorf("the sum is %q, want %d", e.Value, want)
	}
	all := slices.Sorted(slices.Values(slices.Concat(sums...)))
	if len(slices.Compact(all)) != callers*times {
		s.Error("two increments were answered alike")
	}
	if sum, err := s.kv.Increment(s.ctx, bucket, "n", -want-5); err != nil || sum != -5 {
		s.Errorf("down to -5: %d, %v", sum, err)
	}
}

func notNumbers(s *suite) {
	for _, value := range []string{"", "x", "1.5", " 1", "1 ", "+1", "01", "-0", "9223372036854775808", strings.Repeat("9", 100)} {
		r := s.set("a", value, capability.SetOptions{})
		_, err := s.kv.Increment(s.ctx, bucket, "a", 1)
		s.wantStatus(err, capability.InvalidRequest)
		s.want("a", value, r)
	}
	for _, test := range []struct{ value, by int64 }{
		{math.MaxInt64, 1}, {math.MinInt64, -1}, {1, math.MaxInt64}, {-2, math.MinInt64}, {math.MinInt64, math.MinInt64},
	} {
		r := s.set("a", strconv.FormatInt(test.value, 10), capability.SetOptions{})
		_, err := s.kv.Increment(s.ctx, bucket, "a", test.by)
		s.wantStatus(err, capability.InvalidRequest)
		s.want("a", strconv.FormatInt(test.value, 10), r)
	}
	for _, by := range []int64{math.MinInt64, math.MaxInt64} {
		s.set("a", "0", capability.SetOptions{})
		if sum, err := s.kv.Increment(s.ctx, bucket, "a", by); err != nil || sum != by {
			s.Errorf("0 + %d = %d, %v", by, sum, err)
		}
	}
}

func expiry(s *suite) {
	const ttl = time.Second
	began := time.Now()
	first := s.set("short", "x", capability.SetOptions{TTL: ttl})
	s.set("long", "y", capability.SetOptions{TTL: time.Hour})
	s.set("ever", "z", capability.SetOptions{})
	if time.Since(began) < ttl/2 {
		s.wantKeys("", "", 10, false, "ever", "long", "short")
	}
	s.eventually("a key to expire", s.gone("short"))
	if lived := time.Since(began); lived < ttl-50*time.Millisecond {
		s.Errorf("it lived for %s", lived)
	}
	s.wantNone("short")
	s.wantKeys("", "", 10, false, "ever", "long")
	_, err := s.kv.Set(s.ctx, bucket, "short", []byte("x"), at(first))
	s.wantStatus(err, capability.Conflict)
	if existed, err := s.kv.Delete(s.ctx, bucket, "short", nil); err != nil || existed {
		s.Errorf("delete what has expired: existed %v, %v", existed, err)
	}
	if r := s.set("short", "new", at(0)); r <= first {
		s.Errorf("revision %d after %d", r, first)
	}
}

func incrementKeepsTTL(s *suite) {
	s.set("n", "1", capability.SetOptions{TTL: time.Second})
	if _, err := s.kv.Increment(s.ctx, bucket, "n", 1); err != nil {
		s.Fatal(err)
	}
	s.eventually("a number to expire", s.gone("n"))
	if sum, err := s.kv.Increment(s.ctx, bucket, "n", 5); err != nil || sum != 5 {
		s.Errorf("what has expired counts as 0: %d, %v", sum, err)
	}
}

func writeReplacesTTL(s *suite) {
	s.set("kept", "x", capability.SetOptions{TTL: time.Second})
	s.set("shortened", "x", capability.SetOptions{})
	s.set("kept", "y", capability.SetOptions{})
	s.set("shortened", "y", capability.SetOptions{TTL: time.Second})
	s.eventually("a key to expire", s.gone("shortened"))
	if e := s.get("kept"); string(e.Value) != "y" {
		s.Errorf("it holds %q", e.Value)
	}
}

func largeValues(s *suite) {
	for n, size := range []int{capability.MaxValue - 1, capability.MaxValue} {
		value := strings.Repeat(strconv.Itoa(n), size)
		r := s.set("a", value, capability.SetOptions{TTL: time.Hour})
		if e := s.get("a"); string(e.Value) != value || e.Revision != r {
			s.Errorf("%d bytes were written, and %d read", size, len(e.Value))
		}
	}
	_, err := s.kv.Set(s.ctx, bucket, "a", make([]byte, capability.MaxValue+1), capability.SetOptions{})
	s.wantStatus(err, capability.Exhausted)
	if e := s.get("a"); len(e.Value) != capability.MaxValue {
		s.Errorf("a value that was refused left %d bytes", len(e.Value))
	}
	_, err = s.kv.Increment(s.ctx, bucket, "a", 1)
	s.wantStatus(err, capability.InvalidRequest)
}

func badArguments(s *suite) {
	for _, key := range []string{"", strings.Repeat("x", capability.MaxKey+1), "\xff"} {
		_, err := s.kv.Get(s.ctx, bucket, key)
		s.wantStatus(err, capability.InvalidRequest)
		_, _, err = s.kv.Exists(s.ctx, bucket, key)
		s.wantStatus(err, capability.InvalidRequest)
		_, err = s.kv.Set(s.ctx, bucket, key, nil, capability.SetOptions{})
		s.wantStatus(err, capability.InvalidRequest)
		_, err = s.kv.Delete(s.ctx, bucket, key, nil)
		s.wantStatus(err, capability.InvalidRequest)
		_, err = s.kv.Increment(s.ctx, bucket, key, 1)
		s.wantStatus(err, capability.InvalidRequest)
	}
	_, err := s.kv.Set(s.ctx, bucket, "a", nil, capability.SetOptions{TTL: -1})
	s.wantStatus(err, capability.InvalidRequest)
	_, err = s.kv.Set(s.ctx, "", "a", nil, capability.SetOptions{})
	s.wantStatus(err, capability.InvalidRequest)
	s.wantKeys("", "", 10, false)
	// The longest time there is does not overflow into the past.
	s.set("a", "x", capability.SetOptions{TTL: math.MaxInt64})
	s.wantKeys("", "", 10, false, "a")
}

func endedContext(s *suite) {
	ctx, cancel := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
	defer cancel()
	_, err := s.kv.Get(ctx, bucket, "a")
	s.wantStatus(err, capability.Timeout)
	_, err = s.kv.Set(ctx, bucket, "a", nil, capability.SetOptions{})
	s.wantStatus(err, capability.Timeout)
	_, err = s.kv.Increment(ctx, bucket, "a", 1)
	s.wantStatus(err, capability.Timeout)
	_, _, err = s.kv.List(ctx, bucket, "", "", 1)
	s.wantStatus(err, capability.Timeout)
	s.wantNone("a")
}
