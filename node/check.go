package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasmatrix/wasmatrix/fact"
)

// Check says what would keep a node from starting with this configuration, as far as that can be known without making anything
// or disturbing a node that runs.
func Check(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	_, unknownAddress := cfg.advertised()
	return errors.Join(unknownAddress, checkDataDir(cfg.DataDir), cfg.Etcd.Check(), cfg.EventWebhooks.Check())
}

// checkDataDir says why a node could not keep its data there.
func checkDataDir(dir string) error {
	at, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("--data-dir %s: %w", dir, err)
	}
	for {
		info, err := os.Stat(at)
		if errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) { // it would be made
			at = filepath.Dir(at)
			continue
		}
		switch {
		case err != nil:
			return fmt.Errorf("--data-dir %s: %w", dir, err)
		case !info.IsDir():
			return fmt.Errorf("--data-dir %s: %s is no directory", dir, at)
		}
		if err := mayWrite(at); err != nil {
			return fmt.Errorf("--data-dir %s: this user can't write to %s (%w)", dir, at, err)
		}
		break
	}
	path := filepath.Join(dir, "node-id")
	switch raw, err := os.ReadFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--data-dir %s: %w", dir, err)
	default:
		if id := strings.TrimSpace(string(raw)); !fact.ValidID(id) {
			return fmt.Errorf("--data-dir %s: %s holds %q, which is no node id: restore the file, or empty the directory to make this a new node", dir, path, id)
		}
	}
	return nil
}
