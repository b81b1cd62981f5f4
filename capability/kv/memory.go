package kv

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

// memory keeps all in maps, and forgets it when it is closed.
type memory struct {
	most int64

	mu      sync.RWMutex // guards what follows
	buckets map[string]*memoryBucket
	soon    *btree.BTreeG[deadline] // what expires, the next first
	last    uint64                  // the newest revision
	used    int64
}

type memoryBucket struct {
	entries map[string]memoryEntry
	order   *btree.BTreeG[string]
}

type memoryEntry struct {
	value    []byte
	revision uint64
	expires  time.Time // zero for never
}

func (e memoryEntry) expired(now time.Time) bool {
	return !e.expires.IsZero() && !now.Before(e.expires)
}

type deadline struct {
	at          time.Time
	bucket, key string
}

func sooner(a, b deadline) bool {
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	if a.bucket != b.bucket {
		return a.bucket < b.bucket
	}
	return a.key < b.key
}

const (
	treeDegree = 32
	// What an entry takes beside its key and value, about.
	memoryOverhead = 128
	// How many expired keys a write removes at most, beside its own.
	memorySweep = 16
)

func newMemory(most int64) *memory {
	return &memory{most: most, buckets: map[string]*memoryBucket{}, soon: btree.NewG(treeDegree, sooner)}
}

// Check finds nothing that could be wrong.
func (*memory) Check(context.Context) error { return nil }

// Close forgets all.
func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buckets, m.used = map[string]*memoryBucket{}, 0
	m.soon.Clear(false)
	return nil
}

func (m *memory) findLocked(bucket, key string) (memoryEntry, bool) {
	b := m.buckets[bucket]
	if b == nil {
		return memoryEntry{}, false
	}
	e, ok := b.entries[key]
	if !ok || e.expired(time.Now()) {
		return memoryEntry{}, false
	}
	return e, true
}

// Get reads a key.
func (m *memory) Get(_ context.Context, bucket, key string) (capability.Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.findLocked(bucket, key)
	if !ok {
		return capability.Entry{}, notFound(bucket, key)
	}
	return capability.Entry{Value: e.value, Revision: e.revision}, nil
}

// Exists says whether there is a key.
func (m *memory) Exists(_ context.Context, bucket, key string) (uint64, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.findLocked(bucket, key)
	return e.revision, ok, nil
}

// Set writes a key.
func (m *memory) Set(_ context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweepLocked()
	old, _ := m.findLocked(bucket, key)
	if o.IfRevision != nil && *o.IfRevision != old.revision {
		return 0, conflict(old.revision)
	}
	e := memoryEntry{value: bytes.Clone(value)}
	if o.TTL > 0 {
		e.expires = time.Now().Add(o.TTL)
	}
	return m.putLocked(bucket, key, e)
}

// putLocked writes an entry, and gives it its revision.
func (m *memory) putLocked(bucket, key string, e memoryEntry) (uint64, error) {
	size := int64(len(bucket) + len(key) + len(e.value) + memoryOverhead)
	if m.used+size > m.most {
		return 0, capability.Errorf(capability.Exhausted, "the store is full: it holds %d bytes, and at most %d", m.used, m.most)
	}
	m.dropLocked(bucket, key)
	b := m.buckets[bucket]
	if b == nil {
		b = &memoryBucket{entries: map[string]memoryEntry{}, order: btree.NewOrderedG[string](treeDegree)}
		m.buckets[bucket] = b
	}
	m.last++
	e.revision = m.last
	b.entries[key] = e
	b.order.ReplaceOrInsert(key)
	if !e.expires.IsZero() {
		m.soon.ReplaceOrInsert(deadline{e.expires, bucket, key})
	}
	m.used += size
	return e.revision, nil
}

// dropLocked removes an entry, expired or not.
func (m *memory) dropLocked(bucket, key string) {
	b := m.buckets[bucket]
	if b == nil {
		return
	}
	e, ok := b.entries[key]
	if !ok {
		return
	}
	delete(b.entries, key)
	b.order.Delete(key)
	if !e.expires.IsZero() {
		m.soon.Delete(deadline{e.expires, bucket, key})
	}
	if len(b.entries) == 0 {
		delete(m.buckets, bucket)
	}
	m.used -= int64(len(bucket) + len(key) + len(e.value) + memoryOverhead)
}

// sweepLocked removes some of what has expired: more than a write adds.
func (m *memory) sweepLocked() {
	now := time.Now()
	for range memorySweep {
		next, ok := m.soon.Min()
		if !ok || now.Before(next.at) {
			return
		}
		m.dropLocked(next.bucket, next.key)
	}
}

// Delete removes a key.
func (m *memory) Delete(_ context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweepLocked()
	old, ok := m.findLocked(bucket, key)
	if ifRevision != nil && *ifRevision != old.revision {
		return false, conflict(old.revision)
	}
	m.dropLocked(bucket, key)
	return ok, nil
}

// Increment adds to a number.
func (m *memory) Increment(_ context.Context, bucket, key string, by int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweepLocked()
	e, ok := m.findLocked(bucket, key)
	if !ok {
		e.value = []byte("0")
	}
	sum, err := decimal.Add(e.value, by)
	if err != nil {
		return 0, capability.Errorf(capability.InvalidRequest, "%w", err)
	}
	e.value = strconv.AppendInt(nil, sum, 10)
	_, err = m.putLocked(bucket, key, e)
	return sum, err
}

// List returns a page of keys.
func (m *memory) List(_ context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := m.buckets[bucket]
	if b == nil {
		return nil, false, nil
	}
	now := time.Now()
	b.order.AscendGreaterOrEqual(from(prefix, after), func(key string) bool {
		switch {
		case !strings.HasPrefix(key, prefix):
			return false
		case !b.entries[key].expired(now):
			keys = append(keys, key)
		}
		return len(keys) <= limit
	})
	keys, more = cut(keys, limit)
	return keys, more, nil
}
