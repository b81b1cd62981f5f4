package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/logging"
)

// bundle is a .tar.gz that is being written. It takes its name when it is whole, and is for its owner only.
type bundle struct {
	path string
	root string // the one directory in it
	file *os.File

	mu     sync.Mutex // guards what follows
	zipped *gzip.Writer
	tar    *tar.Writer
	nodes  []string // that answered
	errs   []string
	done   bool
}

func newBundle(path, root string) (*bundle, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, err
	}
	b := &bundle{path: path, root: root, file: f, zipped: gzip.NewWriter(f)}
	b.tar = tar.NewWriter(b.zipped)
	return b, nil
}

// add writes one file.
func (b *bundle) add(name string, content []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addLocked(name, content)
}

func (b *bundle) addLocked(name string, content []byte) error {
	if path.Ext(name) != ".pprof" {
		content = []byte(logging.WithoutUserinfo(string(content))) // whoever let it in: a label, say
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(b.root, name), Mode: 0o600, Size: int64(len(content)), ModTime: time.Now()}
	if err := b.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := b.tar.Write(content)
	return err
}

func (b *bundle) addJSON(name string, v any) error {
	var content bytes.Buffer
	if err := printJSON(&content, v); err != nil {
		return err
	}
	return b.add(name, content.Bytes())
}

// fail notes what could not be had.
func (b *bundle) fail(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs = append(b.errs, clean(fmt.Sprintf(format, args...)))
}

// answered notes a node whose files are in the bundle.
func (b *bundle) answered(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = append(b.nodes, node)
}

// finish writes the last files, gives the bundle its name, and returns its size.
func (b *bundle) finish(readme string) (size int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	errs := "everything answered\n"
	if len(b.errs) > 0 {
		errs = strings.Join(b.errs, "\n") + "\n"
	}
	err = errors.Join(b.addLocked("errors.txt", []byte(errs)), b.addLocked("README.txt", []byte(readme)))
	if err = errors.Join(err, b.tar.Close(), b.zipped.Close(), b.file.Sync()); err != nil {
		return 0, err
	}
	info, err := b.file.Stat()
	if err != nil {
		return 0, err
	}
	if err := errors.Join(b.file.Close(), os.Rename(b.file.Name(), b.path)); err != nil {
		return 0, err
	}
	b.done = true
	return info.Size(), nil
}

// discard removes what is not whole.
func (b *bundle) discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.done {
		_ = errors.Join(b.file.Close(), os.Remove(b.file.Name())) // whatever kept it from being whole is told
	}
}

// readme says what is in a bundle.
func readme(name string, at time.Time, guestData bool) string {
	guests := "Arguments, environment and output of instances are not in it (WITHHELD)."
	if guestData {
		guests = "Arguments, environment and the last output of instances ARE in it, as was asked for: they may hold secrets."
	}
	return name + ", collected at " + at.Format(time.RFC3339) + ` by wasmatrix operator debug

` + guests + `
Passwords of providers and those in URLs were taken out. Names, labels, addresses and the reasons of crashes are in it.

errors.txt              what could not be had, and which nodes did not answer
cluster/                what the cluster says of itself; as the leader has it
  status.json           wasmatrix status
  members.json          wasmatrix members
  raft.json             wasmatrix operator raft ls: the voters, and how far each log is
  instances.json        wasmatrix ps -a, each whole
  providers.json        wasmatrix provider ls
  events.json           wasmatrix events
nodes/NAME/             one node, as it sees itself and the others
  build.txt             the binary's version and libraries
  host.txt              kernel, limits, memory, pressure, free disk
  settings.txt          its settings, and where each is from
  log.txt               its last log lines, from info on or as the level is
  metrics.txt           /metrics
  raft.txt              its part in the quorum, and what Raft says of itself
  gossip.txt            who is here, as its gossip has it
  instances.json        the records of its agent, one a line: the truth about its host
  goroutines.txt        what its goroutines do, grouped
  stacks.txt            each of them, and since when it waits
  heap.pprof            memory: go tool pprof -top heap.pprof
  cpu.pprof             processors: go tool pprof -top cpu.pprof; not with --duration 0s
  guest-output.txt      the last output of instances; only with --with-guest-data
`
}
