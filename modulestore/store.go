package modulestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// MaxSize is the largest module that is taken, in bytes.
const MaxSize = 256 << 20

const (
	moduleSuffix = ".wasm"
	partSuffix   = ".part"
)

// partFor is how long what came of a broken transfer is kept for the next one.
const partFor = 24 * time.Hour

// ErrNotFound says that the store does not hold a module.
var ErrNotFound = errors.New("the store does not hold it")

// DamagedError says that a stored module is not what its name says. It has been removed.
type DamagedError struct{ Hash Hash }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("module %s was damaged on disk and has been removed; it is fetched again from a peer", e.Hash.Short())
}

// Store is a directory of modules. Its methods are safe for concurrent use.
type Store struct {
	dir string

	mu        sync.Mutex        // guards all below
	receiving map[Hash]struct{} // modules whose part file a transfer writes now
	usage     Usage             // as of the last look
}

// Usage is what a store takes up.
type Usage struct {
	Modules int
	Bytes   int64
}

// Info describes a module that is held.
type Info struct {
	Hash     Hash
	Size     int64 // bytes
	StoredAt time.Time
}

// Open opens the store in a directory, which it makes if need be.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the module store: %w", err)
	}
	seconds, err := filepath.Glob(filepath.Join(dir, "*.*"+partSuffix)) // of a process that died
	if err != nil {
		return nil, fmt.Errorf("clean the module store: %w", err)
	}
	for _, path := range seconds {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("clean the module store: %w", err)
		}
	}
	s := &Store{dir: dir, receiving: map[Hash]struct{}{}}
	_, err = s.List()
	return s, err
}

// Usage returns what the store took up when it was last listed or changed. It does not touch the disk.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

// Sweep deletes what came of transfers that broke a day ago and that nobody has gone on with.
func (s *Store) Sweep(now time.Time) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep the module store: %w", err)
	}
	s.mu.Lock() // so that no transfer goes on with a part that is about to go
	defer s.mu.Unlock()
	var errs []error
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), partSuffix)
		h, err := ParseHash(prefix + digits)
		if !ok || err != nil { // among them a second transfer's own part, which goes with that
			continue
		}
		if _, goesOn := s.receiving[h]; goesOn {
			continue
		}
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > partFor {
			errs = append(errs, ignoreMissing(os.Remove(filepath.Join(s.dir, e.Name()))))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep the module store: %w", err)
	}
	return nil
}

// Has says whether a module is held, and how large it is.
func (s *Store) Has(h Hash) (size int64, ok bool) {
	info, err := os.Stat(s.path(h))
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

// Open opens a module's bytes for reading, without verifying them: whoever receives them does.
func (s *Store) Open(h Hash) (io.ReadSeekCloser, int64, error) {
	f, err := os.Open(s.path(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("module %s: %w", h.Short(), ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("module %s: %w", h.Short(), err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("module %s: %w", h.Short(), err), f.Close())
	}
	return f, info.Size(), nil
}

// Read returns a module's bytes, verified. A damaged module is removed, and the error is a
// [*DamagedError].
func (s *Store) Read(h Hash) ([]byte, error) {
	module, err := os.ReadFile(s.path(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("module %s: %w", h.Short(), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", h.Short(), err)
	}
	if Sum(module) != h {
		return nil, errors.Join(&DamagedError{Hash: h}, s.Remove(h))
	}
	return module, nil
}

// Remove deletes a module. Whoever reads it now reads on; one that is not held is removed already.
func (s *Store) Remove(h Hash) error {
	if err := ignoreMissing(os.Remove(s.path(h))); err != nil {
		return fmt.Errorf("module %s: %w", h.Short(), err)
	}
	s.look()
	return nil
}

// look brings Usage up to date, where the directory can be read.
func (s *Store) look() { _, _ = s.List() }

// List returns what is held, by hash. A directory that somebody has removed holds nothing.
func (s *Store) List() ([]Info, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the module store: %w", err)
	}
	var all []Info
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), moduleSuffix)
		if !ok {
			continue
		}
		h, err := ParseHash(prefix + digits)
		if err != nil {
			continue // somebody else's file
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", h.Short(), err)
		}
		all = append(all, Info{Hash: h, Size: info.Size(), StoredAt: info.ModTime()})
	}
	usage := Usage{Modules: len(all)}
	for _, one := range all {
		usage.Bytes += one.Size
	}
	s.mu.Lock()
	s.usage = usage
	s.mu.Unlock()
	return all, nil
}

func (s *Store) path(h Hash) string { return filepath.Join(s.dir, h.digits()+moduleSuffix) }
