package modulestore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Incoming is a module on its way in. One of Commit, Discard and Close ends it; Close after another
// does nothing.
type Incoming struct {
	store  *Store
	hash   Hash
	size   int64
	part   *os.File
	offset int64
	sum    hash.Hash
	second bool // another transfer has the module's part file; this one's is its own, and goes with it
	ended  bool
}

// Receive begins to take in a module of a size in bytes, or goes on with what an earlier transfer
// left: [Incoming.Offset] says from where.
func (s *Store) Receive(h Hash, size int64) (*Incoming, error) {
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("module %s of %d bytes: want at most %d", h.Short(), size, MaxSize)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil { // somebody may have emptied the disk under a running node
		return nil, fmt.Errorf("make the module store: %w", err)
	}
	in, err := s.openPart(h, size, !s.claim(h))
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", h.Short(), err)
	}
	return in, nil
}

func (s *Store) claim(h Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.receiving[h]; taken {
		return false
	}
	s.receiving[h] = struct{}{}
	return true
}

func (s *Store) release(h Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.receiving, h)
}

func (s *Store) openPart(h Hash, size int64, second bool) (_ *Incoming, err error) {
	in := &Incoming{store: s, hash: h, size: size, sum: sha256.New(), second: second}
	if second {
		in.part, err = os.CreateTemp(s.dir, h.digits()+".*"+partSuffix)
	} else {
		in.part, err = os.OpenFile(filepath.Join(s.dir, h.digits()+partSuffix), os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		in.letGo()
		return nil, err
	}
	if in.offset, err = io.Copy(in.sum, in.part); err == nil && in.offset > size { // of a wrong transfer
		in.offset = 0
		in.sum.Reset()
		if err = in.part.Truncate(0); err == nil {
			_, err = in.part.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// Offset is how many bytes are there already; the next Write continues there.
func (in *Incoming) Offset() int64 { return in.offset }

// Write appends bytes.
func (in *Incoming) Write(b []byte) (int, error) {
	if in.offset+int64(len(b)) > in.size {
		return 0, fmt.Errorf("module %s: more than the %d bytes that were announced", in.hash.Short(), in.size)
	}
	n, err := in.part.Write(b)
	in.sum.Write(b[:n])
	in.offset += int64(n)
	if err != nil {
		return n, fmt.Errorf("module %s: %w", in.hash.Short(), err)
	}
	return n, nil
}

// Commit verifies the module and puts it into the store. If the bytes are not those of the hash,
// they are thrown away; if some are missing, they are kept for the next transfer.
func (in *Incoming) Commit() error {
	if in.offset < in.size {
		return errors.Join(fmt.Errorf("module %s: %d of %d bytes came", in.hash.Short(), in.offset, in.size), in.Close())
	}
	if got := ofDigest([sha256.Size]byte(in.sum.Sum(nil))); got != in.hash {
		return errors.Join(fmt.Errorf("module %s: the bytes that came are of %s", in.hash.Short(), got.Short()), in.Discard())
	}
	defer in.letGo()
	in.ended = true
	err := errors.Join(in.part.Sync(), in.part.Close())
	if err == nil {
		err = os.Rename(in.part.Name(), in.store.path(in.hash))
	}
	if err == nil {
		err = syncDir(in.store.dir)
	}
	if err != nil {
		return fmt.Errorf("module %s: %w", in.hash.Short(), err)
	}
	in.store.look()
	return nil
}

// Close ends a transfer that was not committed. What came is kept for the next one.
func (in *Incoming) Close() error {
	if in.ended {
		return nil
	}
	in.ended = true
	defer in.letGo()
	err := in.part.Close()
	if in.second {
		err = errors.Join(err, ignoreMissing(os.Remove(in.part.Name())))
	}
	return err
}

// Discard ends a transfer of what nobody should have: what came is thrown away.
func (in *Incoming) Discard() error {
	return errors.Join(ignoreMissing(os.Remove(in.part.Name())), in.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// letGo leaves the module's part file to the next transfer.
func (in *Incoming) letGo() {
	if !in.second {
		in.store.release(in.hash)
	}
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
