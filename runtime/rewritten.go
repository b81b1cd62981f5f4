package runtime

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/wasmatrix/wasmatrix/runtime/meter"
)

// rewrittenPrefix begins the name of each directory of rewritten modules.
const rewrittenPrefix = "metered-"

// A rewritten module is kept by the hash of what it was made of; one that is called otherwise is not kept.
var keptHash = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// rewrittenModules keeps modules with metering in them beside the code that was compiled of them: rewriting takes as long as reading
// that code.
type rewrittenModules struct {
	dir string // empty where none are kept
	log *slog.Logger
}

// openRewritten returns those below the cache's directory, after it has deleted what other versions made.
func openRewritten(cacheDir string, log *slog.Logger) (*rewrittenModules, error) {
	if cacheDir == "" {
		return &rewrittenModules{log: log}, nil
	}
	ours := fmt.Sprintf("%s%d-%d-wazero-%s", rewrittenPrefix, meter.Version, maxElements, wazeroVersion())
	dir := filepath.Join(cacheDir, ours)
	err := os.MkdirAll(dir, 0o700)
	all, unread := os.ReadDir(cacheDir)
	err = errors.Join(err, unread)
	for _, e := range all {
		if strings.HasPrefix(e.Name(), rewrittenPrefix) && e.Name() != ours {
			err = errors.Join(err, os.RemoveAll(filepath.Join(cacheDir, e.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the cache of rewritten modules: %w", err)
	}
	return &rewrittenModules{dir: dir, log: log}, nil
}

// wazeroVersion is that of the module graph; of a program built otherwise, nothing is known.
func wazeroVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/tetratelabs/wazero" {
				return d.Version
			}
		}
	}
	return "unknown"
}

// read returns the rewritten module of that hash, if there is one and it is as it was written: a flipped bit might take the metering
// out of it.
func (r *rewrittenModules) read(hash string) (wasm []byte, ok bool) {
	if r.dir == "" || !keptHash.MatchString(hash) {
		return nil, false
	}
	raw, err := os.ReadFile(r.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	if err == nil && len(raw) >= sha256.Size && bytes.Equal(raw[:sha256.Size], checksum(hash, raw[sha256.Size:])) {
		return raw[sha256.Size:], true
	}
	r.log.Warn("a rewritten module on disk is damaged; it is made anew", "module", hash, "path", r.path(hash), "err", err)
	return nil, false
}

// write keeps a rewritten module. It need not be on the disk for sure: what is torn is found when it is read.
func (r *rewrittenModules) write(hash string, wasm []byte) {
	if r.dir == "" || !keptHash.MatchString(hash) {
		return
	}
	unfinished := r.path(hash) + ".tmp" // of one compilation at a time
	err := os.WriteFile(unfinished, append(checksum(hash, wasm), wasm...), 0o600)
	if err == nil {
		err = os.Rename(unfinished, r.path(hash))
	}
	if err != nil {
		r.log.Warn("a rewritten module is not kept on disk; it is made anew when it is needed again", "module", hash, "err", errors.Join(err, removeIfThere(unfinished)))
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (r *rewrittenModules) path(hash string) string {
	return filepath.Join(r.dir, strings.TrimPrefix(hash, "sha256:")+".wasm")
}

// checksum is of what was written and of what it was made of, so that a file is that of no other module either.
func checksum(hash string, wasm []byte) []byte {
	sum := sha256.New()
	sum.Write([]byte(hash))
	sum.Write(wasm)
	return sum.Sum(nil)
}
