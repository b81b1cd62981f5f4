package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// disk is what the writer does to a directory. Tests have one that fails, hangs, or is cut off in
// between.
type disk interface {
	Create(path string) (file, error)
	Rename(from, to string) error
	Link(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

// file is one that is being written.
type file interface {
	io.WriteCloser
	Sync() error
}

// osDisk is the real one.
type osDisk struct{}

func (osDisk) Create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err // a nil *os.File is not a nil file
	}
	return f, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Link(from, to string) error   { return os.Link(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ignore marks errors that change nothing: what they are of is given up, because of another error.
func ignore(error) {}

// diskError says what failed, where, and what to do about it.
func diskError(op, path string, err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		err = of.Err // its path may be that of before a rename
	}
	return fmt.Errorf("journal: %s %s: %w; %s", op, path, err, hint(filepath.Dir(path), err))
}

func hint(dir string, err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the disk of " + dir
	case errors.Is(err, syscall.EROFS):
		return "mount the disk of " + dir + " writable; a disk that became read-only may be failing"
	case errors.Is(err, fs.ErrPermission):
		return "make " + dir + " writable for the user that runs wasmatrix"
	default:
		return "check the disk of " + dir + ", and what the kernel says of it"
	}
}

const (
	damagedInfix = ".damaged-" // and the Unix time
	maxDamaged   = 3
)

// keepAside gives the damaged file a second name before it is replaced, for who wants to know what
// happened or to get more out of it. Only the newest of such files stay. That it does not work out is no
// reason to go on without a journal.
func (w *writer) keepAside() {
	j := w.journal
	times, err := damagedFiles(j.cfg.Dir)
	if err != nil {
		j.log.Warn("the damaged journal can't be kept aside", "path", j.path, "err", err)
		return
	}
	now := time.Now().Unix()
	if n := len(times); n > 0 {
		now = max(now, times[n-1]+1) // several may be found in one second, and clocks are set back
	}
	if err := w.disk.Link(j.path, damagedPath(j.path, now)); err != nil {
		j.log.Warn("the damaged journal can't be kept aside", "path", j.path, "err", err)
		return
	}
	j.log.Info("the damaged journal is kept aside", "path", damagedPath(j.path, now))
	times = append(times, now)
	for _, at := range times[:max(0, len(times)-maxDamaged)] {
		if err := w.disk.Remove(damagedPath(j.path, at)); err != nil {
			j.log.Warn("an old damaged journal can't be removed", "err", err)
		}
	}
}

// damagedFiles returns the times of the files that were kept aside, the oldest first.
func damagedFiles(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var times []int64
	for _, e := range entries {
		if digits, ok := strings.CutPrefix(e.Name(), fileName+damagedInfix); ok {
			if at, err := strconv.ParseInt(digits, 10, 64); err == nil { // or it is somebody else's
				times = append(times, at)
			}
		}
	}
	slices.Sort(times)
	return times, nil
}

func damagedPath(path string, at int64) string {
	return path + damagedInfix + strconv.FormatInt(at, 10)
}
