package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Recovered is what a journal held when it was opened.
type Recovered struct {
	Records []*pb.Instance    // the newest of each instance, by id
	Meta    map[string][]byte // what was set last
	Damage  []Damage          // what could not be read, in the order of the file
}

// Damage is a stretch of the file that holds no intact entry.
type Damage struct {
	Offset int64
	Bytes  int64
	Reason string
	// Torn says that nothing intact comes behind it. That is how a power cut leaves the last write, of
	// which nobody was told that it is on disk.
	Torn bool
}

func (d Damage) String() string {
	return fmt.Sprintf("%d bytes at offset %d: %s", d.Bytes, d.Offset, d.Reason)
}

// Open reads the journal in a directory, which it makes if need be. It writes nothing yet: Run does.
//
// Damage is no error, whatever there is of it. Errors are a file that can't be read at all, and one of
// a version of the format that this program does not know.
func Open(cfg Config) (*Journal, Recovered, error) {
	if err := cfg.Validate(); err != nil {
		return nil, Recovered{}, err
	}
	j := newJournal(cfg.withDefaults())
	if err := j.registerMetrics(); err != nil {
		return nil, Recovered{}, fmt.Errorf("register the metrics of the journal: %w", err)
	}
	if err := makeDir(j.cfg.Dir); err != nil {
		return nil, Recovered{}, fmt.Errorf("make the journal's directory: %w", err)
	}
	data, err := j.read()
	if errors.Is(err, fs.ErrNotExist) {
		return j, Recovered{Meta: map[string][]byte{}}, nil
	}
	if err != nil {
		return nil, Recovered{}, fmt.Errorf("read the journal %s: %w", j.path, err)
	}
	found, err := decode(data)
	if err != nil {
		return nil, Recovered{}, fmt.Errorf("read the journal %s: %w", j.path, err)
	}
	for _, d := range found.damage {
		j.report(d)
	}
	j.evidence = len(found.damage) > 0
	j.fileBytes = int64(len(data))
	for k, e := range found.held {
		e.frame = bytes.Clone(e.frame) // or one record would keep the whole file in memory
		j.held[k] = e
		j.heldBytes += int64(len(e.frame))
	}
	return j, found.recovered(), nil
}

func (j *Journal) report(d Damage) {
	if d.Torn {
		j.log.Info("the end of the journal was not written completely, as after a power cut; all before it is used",
			"path", j.path, "offset", d.Offset, "bytes", d.Bytes, "reason", d.Reason)
		return
	}
	j.log.Error("the journal is damaged; what is intact before and behind is used, and the file is kept aside",
		"path", j.path, "offset", d.Offset, "bytes", d.Bytes, "reason", d.Reason)
}

// read returns the file's bytes, with zeros for those that the disk does not give back.
func (j *Journal) read() ([]byte, error) {
	f, err := os.Open(j.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data, lost, err := readAround(f, info.Size())
	if lost > 0 {
		j.log.Error("the disk can't read parts of the journal", "path", j.path, "bytes", lost)
	}
	return data, err
}

// readAround reads so many bytes. Where the disk reports an I/O error, it reads the blocks one by one
// and leaves zeros for those that are lost.
func readAround(r io.ReaderAt, size int64) (data []byte, lost int64, err error) {
	const block = 4096 // what a disk loses at once, at the least
	data = make([]byte, size)
	n, err := r.ReadAt(data, 0)
	if err == nil || errors.Is(err, io.EOF) {
		return data[:n], 0, nil
	}
	for at := int64(0); at < size && errors.Is(err, syscall.EIO); at += block {
		part := data[at:min(at+block, size)]
		_, e := r.ReadAt(part, at)
		switch {
		case e == nil:
		case errors.Is(e, syscall.EIO):
			clear(part)
			lost += int64(len(part))
		default:
			err = e
		}
	}
	if !errors.Is(err, syscall.EIO) {
		return nil, lost, err
	}
	return data, lost, nil
}

// contents are what a file holds, when all its frames have been applied.
type contents struct {
	held    map[key]entry
	records map[string]*pb.Instance
	damage  []Damage
}

// decode reads a file's bytes. The frames of the result share memory with data.
func decode(data []byte) (*contents, error) {
	c := &contents{held: map[key]entry{}, records: map[string]*pb.Instance{}}
	why, err := parseHeader(data)
	if err != nil {
		return nil, err
	}
	at := headerSize
	if why != "" {
		at = c.skip(data, 0, why)
	}
	for at < len(data) {
		frame, why := frameAt(data[at:])
		if why != "" {
			at = c.skip(data, at, why)
			continue
		}
		if err := c.apply(frame); err != nil {
			c.damage = append(c.damage, Damage{Offset: int64(at), Bytes: int64(len(frame)), Reason: err.Error()})
		}
		at += len(frame)
	}
	return c, nil
}

// skip notes damage and returns where the next intact frame begins.
func (c *contents) skip(data []byte, at int, why string) int {
	next := nextFrame(data, at)
	c.damage = append(c.damage, Damage{int64(at), int64(next - at), why, next == len(data)})
	return next
}

// apply does what an intact frame says.
//
// Generations are not compared: that was done before it was written, and a generation may follow on a
// higher one whose removal never had to be written.
func (c *contents) apply(frame []byte) error {
	payload := frame[frameHeaderSize+1:]
	switch k := kind(frame[frameHeaderSize]); k {
	case kindInstance:
		rec := &pb.Instance{}
		if err := proto.Unmarshal(payload, rec); err != nil {
			return fmt.Errorf("a record can't be decoded: %w", err)
		}
		id := rec.GetInstanceId()
		if id == "" {
			return errors.New("a record has no instance id")
		}
		c.held[key{kindInstance, id}] = entry{rec.GetGeneration(), frame, true}
		c.records[id] = rec
	case kindRemoval:
		delete(c.held, key{kindInstance, string(payload)})
		delete(c.records, string(payload))
	case kindMeta:
		name, _, err := parseMeta(payload)
		if err != nil {
			return fmt.Errorf("a meta entry can't be decoded: %w", err)
		}
		c.held[key{kindMeta, name}] = entry{0, frame, true}
	default:
		return fmt.Errorf("an entry of the unknown kind %d", byte(k))
	}
	return nil
}

func (c *contents) recovered() Recovered {
	r := Recovered{Records: make([]*pb.Instance, 0, len(c.records)), Meta: map[string][]byte{}, Damage: c.damage}
	for _, id := range slices.Sorted(maps.Keys(c.records)) {
		r.Records = append(r.Records, c.records[id])
	}
	for k, e := range c.held {
		if k.kind == kindMeta {
			_, value, _ := parseMeta(e.frame[frameHeaderSize+1:]) // apply has parsed it
			r.Meta[k.name] = bytes.Clone(value)
		}
	}
	return r
}

// makeDir makes a directory so that it survives a power cut.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return osDisk{}.SyncDir(filepath.Dir(dir))
}
