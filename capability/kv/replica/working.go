package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"go.etcd.io/bbolt"

	"github.com/wasmatrix/wasmatrix/capability"
)

// working is the store that answers: a file that is made at each start, filled from the newest snapshot and the log, and
// never synced. A crash costs nothing but the filling.
type working struct {
	*bbolt.DB

	file string
	size int64 // bytes of all paths and records; its writer's alone
}

// The buckets of a working store.
var (
	recordsBucket = []byte("records") // path → record
	expiryBucket  = []byte("expiry")  // time, then path → nothing
)

// mapped is how much of a store is mapped from the start. To map more, a writer has to wait for readers to end, and one that
// writes a snapshot may take a while; until it is used, it is only numbers.
const mapped = 1 << 30

func openWorking(dir string) (*working, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "store-*.db")
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	o := &bbolt.Options{NoSync: true, NoGrowSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
	if strconv.IntSize == 64 {
		o.InitialMmapSize = mapped
	}
	db, err := bbolt.Open(f.Name(), 0o600, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name(), err)
	}
	w := &working{DB: db, file: f.Name()}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(recordsBucket)
		if err == nil {
			_, err = tx.CreateBucket(expiryBucket)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", f.Name(), err), w.remove())
	}
	return w, nil
}

// remove closes the store, once its readers are done, and deletes its file.
func (w *working) remove() error { return errors.Join(w.Close(), os.Remove(w.file)) }

// removeLeftovers deletes the stores that earlier lives of this node left.
func removeLeftovers(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "store-*.db"))
	if err != nil {
		return err
	}
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// path is where a key is in the store. The keys of one bucket are side by side, in the order of their bytes.
func path(provider, bucket, key string) []byte {
	b := make([]byte, 0, len(provider)+len(bucket)+len(key)+4)
	b = binary.AppendUvarint(b, uint64(len(provider)))
	b = append(b, provider...)
	b = binary.AppendUvarint(b, uint64(len(bucket)))
	b = append(b, bucket...)
	return append(b, key...)
}

const (
	maxPath    = 2*(maxName+2) + capability.MaxKey
	recordHead = 16
	maxRecord  = recordHead + capability.MaxValue
	forever    = 0
)

// record is what is kept under a path.
type record struct {
	Revision uint64
	Expires  int64  // Unix nanoseconds; forever where it does not
	Value    []byte // valid as long as the transaction that read it
}

func (r record) encode() []byte {
	b := make([]byte, 0, recordHead+len(r.Value))
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	return append(b, r.Value...)
}

func decodeRecord(b []byte) record {
	return record{
		Revision: binary.BigEndian.Uint64(b), Expires: int64(binary.BigEndian.Uint64(b[8:])), Value: b[recordHead:],
	}
}

func (r record) expired(now int64) bool { return r.Expires != forever && r.Expires <= now }

// expiresAfter returns when a key that is written now expires.
func expiresAfter(now, ttl int64) int64 {
	switch {
	case ttl <= 0:
		return forever
	case now > math.MaxInt64-ttl:
		return math.MaxInt64
	}
	return now + ttl
}

// page is a transaction's view of the store.
type page struct{ records, expiry *bbolt.Bucket }

func pageOf(tx *bbolt.Tx) page { return page{tx.Bucket(recordsBucket), tx.Bucket(expiryBucket)} }

// read returns what is kept under a path and has not expired.
func (p page) read(path []byte, now int64) (record, bool) {
	raw := p.records.Get(path)
	if raw == nil {
		return record{}, false
	}
	r := decodeRecord(raw)
	return r, !r.expired(now)
}

// put writes a record, and returns by how much the store has grown.
func (p page) put(path []byte, r record) (grown int64, err error) {
	freed, err := p.drop(path)
	if err != nil {
		return 0, err
	}
	if r.Expires != forever {
		if err := p.expiry.Put(expiryKey(r.Expires, path), nil); err != nil {
			return 0, err
		}
	}
	raw := r.encode()
	return int64(len(path)+len(raw)) + freed, p.records.Put(path, raw)
}

// drop removes what is kept under a path, expired or not.
func (p page) drop(path []byte) (grown int64, err error) {
	raw := p.records.Get(path)
	if raw == nil {
		return 0, nil
	}
	if expires := decodeRecord(raw).Expires; expires != forever {
		if err := p.expiry.Delete(expiryKey(expires, path)); err != nil {
			return 0, err
		}
	}
	return -int64(len(path) + len(raw)), p.records.Delete(path)
}

func expiryKey(expires int64, path []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(path)), uint64(expires)), path...)
}

// expired returns the paths of the keys that expired first, at most so many.
func (p page) expired(now int64, most int) (paths [][]byte) {
	c := p.expiry.Cursor()
	for k, _ := c.First(); k != nil && len(paths) < most; k, _ = c.Next() {
		if int64(binary.BigEndian.Uint64(k)) > now {
			break
		}
		paths = append(paths, append([]byte(nil), k[8:]...))
	}
	return paths
}
