package wasmatrix

import (
	"iter"
	"time"

	"github.com/wasmatrix/wasmatrix/sdk/go/internal/abi"
)

// Store is a bucket of keys and values.
type Store struct{ capability, bucket string }

// Entry is what a key holds.
type Entry struct {
	Value    []byte
	Revision uint64 // raised with each write of the key; never 0
}

// KV returns the instance's own bucket of a store, which it shares with the instances of its name.
func KV(capability string) Store { return Store{capability: capability} }

// Bucket returns another bucket of the same store. It takes a grant of kv:bucket:NAME.
func (s Store) Bucket(name string) Store { return Store{s.capability, name} }

// Get returns the value of a key, or [ErrNotFound].
func (s Store) Get(key string) ([]byte, error) {
	e, err := s.Read(key)
	return e.Value, err
}

// Read returns what a key holds and at which revision, or [ErrNotFound].
func (s Store) Read(key string) (Entry, error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	if _, err := abi.Called(abi.KVGet(s.capability, s.bucket, key)); err != nil {
		return Entry{}, err
	}
	return Entry{Value: abi.Result(), Revision: uint64(abi.ResultNumber())}, nil
}

// Exists says whether there is such a key.
func (s Store) Exists(key string) (bool, error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	n, err := abi.Called(abi.KVExists(s.capability, s.bucket, key))
	return n > 0, err
}

// SetOption says how a key is written: [TTL], [IfRevision] or [IfAbsent].
type SetOption interface{ apply(*setOptions) }

type setOptions struct {
	ttl        time.Duration
	ifRevision Condition
}

type ttl time.Duration

func (t ttl) apply(o *setOptions) { o.ttl = time.Duration(t) }

// TTL is how long what is written lives. Stores may round it up to whole seconds.
func TTL(d time.Duration) SetOption { return ttl(d) }

// Condition is the revision that a key must be at for a write to be done; else that is [ErrConflict].
type Condition int64

const anyRevision Condition = -1

func (c Condition) apply(o *setOptions) { o.ifRevision = c }

// IfRevision lets a write be done only if the key is at this revision.
func IfRevision(revision uint64) Condition { return Condition(revision) }

// IfAbsent lets a write be done only if there is no such key.
func IfAbsent() Condition { return 0 }

// Set writes a key and returns its new revision.
func (s Store) Set(key string, value []byte, options ...SetOption) (revision uint64, err error) {
	o := setOptions{ifRevision: anyRevision}
	for _, option := range options {
		option.apply(&o)
	}
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	at, size := abi.Data(value)
	if _, err := abi.Called(abi.KVSet(s.capability, s.bucket, key, at, size, abi.Milliseconds(o.ttl), int64(o.ifRevision))); err != nil {
		return 0, err
	}
	return uint64(abi.ResultNumber()), nil
}

// Delete removes a key and says whether it was there.
func (s Store) Delete(key string, condition ...Condition) (existed bool, err error) {
	o := setOptions{ifRevision: anyRevision}
	for _, c := range condition {
		c.apply(&o)
	}
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	n, err := abi.Called(abi.KVDelete(s.capability, s.bucket, key, int64(o.ifRevision)))
	return n > 0, err
}

// Increment adds to a number, which is kept as decimal text, in one step, and returns the sum. A key that is not there counts
// as 0.
func (s Store) Increment(key string, by int64) (sum int64, err error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	if _, err := abi.Called(abi.KVIncrement(s.capability, s.bucket, key, by)); err != nil {
		return 0, err
	}
	return abi.ResultNumber(), nil
}

// List returns at most limit keys (0 for 1000, which is the most) with a prefix that come after a key in the order of
// their bytes, and whether there are more.
func (s Store) List(prefix, after string, limit int) (keys []string, more bool, err error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	if _, err := abi.Called(abi.KVList(s.capability, s.bucket, prefix, after, int32(limit))); err != nil {
		return nil, false, err
	}
	for _, item := range abi.Items(abi.Result()) {
		keys = append(keys, string(item))
	}
	return keys, abi.ResultNumber() != 0, nil
}

// Keys goes through all keys with a prefix, in the order of their bytes. It ends with an error, if there is one.
func (s Store) Keys(prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for after := ""; ; {
			keys, more, err := s.List(prefix, after, 0)
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range keys {
				if !yield(key, nil) {
					return
				}
				after = key
			}
			if !more {
				return
			}
		}
	}
}
