package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Some files are kept only because they may save work. They are bounded here, so that a node that runs ever other
// modules does not fill its disk.
const (
	tidyEvery = time.Hour
	// How long compiled code is kept, and how many bytes of it, the newest: what is missing is compiled again, which takes a
	// large Go module 0.75 s. Nothing says when it was used last.
	compiledFor  = 30 * 24 * time.Hour
	compiledMost = 1 << 30
	// After how long a file that was being written is left from a process that died.
	unfinishedFor = time.Hour
)

// tidy deletes what need not be kept any longer: at the start, and every hour.
func (n *node) tidy(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		if err := errors.Join(n.store.Sweep(now), tidyCompiled(filepath.Join(n.cfg.DataDir, compiledDir), now, compiledMost)); err != nil {
			n.cfg.Log.WarnContext(ctx, "some files could not be tidied away; trying again in an hour", "err", err)
		}
		n.engine.CompiledFilesChanged()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// compiledFile is a file with the compiled code of one module.
type compiledFile struct {
	path    string
	size    int64
	written time.Time
}

// tidyCompiled deletes compiled code that is too old and, the oldest first, what is more than so many bytes.
func tidyCompiled(dir string, now time.Time, most int64) error {
	var (
		all   []compiledFile
		total int64
	)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it comes and goes
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if info, err := e.Info(); err == nil {
			all = append(all, compiledFile{path, info.Size(), info.ModTime()})
			total += info.Size()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tidy compiled code: %w", err)
	}
	slices.SortFunc(all, func(a, b compiledFile) int {
		return cmp.Or(a.written.Compare(b.written), strings.Compare(a.path, b.path))
	})
	var errs []error
	for _, f := range all {
		age := now.Sub(f.written)
		unfinished := strings.HasSuffix(f.path, ".tmp") && age > unfinishedFor
		if age <= compiledFor && total <= most && !unfinished {
			continue
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		total -= f.size
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tidy compiled code: %w", err)
	}
	return nil
}
