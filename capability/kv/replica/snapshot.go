package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// snapshotMagic opens a snapshot, and ends with its version. After it come the clock, the calls with their number before
// them, each record after a 1, and after a 0 how many there were: a snapshot that was cut short is none.
const snapshotMagic = "wmkv\x01"

const (
	snapshotBuffer = 256 << 10
	restoreBatch   = 4 << 20 // bytes in one transaction
)

// snapshot is the state as it was at one moment.
type snapshot struct {
	tx    *bbolt.Tx
	clock int64
	calls []call
}

// Snapshot holds the state fast. The log counts from here on.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.isBroken() {
		return nil, errors.New("the store is broken")
	}
	tx, err := f.store.Begin(false)
	if err != nil {
		return nil, err
	}
	f.logged = 0
	return &snapshot{tx: tx, clock: f.clock.Load(), calls: f.calls.all()}, nil
}

// Release lets the state go. A second call does nothing.
func (s *snapshot) Release() {
	_ = s.tx.Rollback() // a reader has nothing to undo
}

// Persist writes the state, and lets it go: raft.RecoverCluster never calls Release, and a store with readers is
// never closed.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	defer s.Release()
	err := s.write(sink)
	if err != nil {
		return errors.Join(fmt.Errorf("write a snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

func (s *snapshot) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, snapshotBuffer)
	b := append([]byte(nil), snapshotMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.clock))
	b = binary.AppendUvarint(b, uint64(len(s.calls)))
	for _, c := range s.calls {
		b = append(b, c.ID[:]...)
		b = binary.BigEndian.AppendUint32(b, c.Print)
		b = append(b, byte(c.Answer.Code))
		b = binary.BigEndian.AppendUint64(b, c.Answer.Number)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	var count uint64
	cursor := s.tx.Bucket(recordsBucket).Cursor()
	for path, raw := cursor.First(); path != nil; path, raw = cursor.Next() {
		head := binary.AppendUvarint([]byte{1}, uint64(len(path)))
		head = append(head, path...)
		head = binary.AppendUvarint(head, uint64(len(raw)))
		if _, err := w.Write(head); err != nil {
			return err
		}
		if _, err := w.Write(raw); err != nil {
			return err
		}
		count++
	}
	if _, err := w.Write(binary.BigEndian.AppendUint64([]byte{0}, count)); err != nil {
		return err
	}
	return w.Flush()
}

// Restore replaces the state by a snapshot's. A damaged one changes nothing.
func (f *fsm) Restore(source io.ReadCloser) error {
	fresh, err := newFSM(f.dir, f.log)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	if err := errors.Join(fresh.read(bufio.NewReaderSize(source, snapshotBuffer)), source.Close()); err != nil {
		return errors.Join(fmt.Errorf("read a snapshot: %w", err), fresh.close())
	}
	f.mu.Lock()
	old := f.store
	f.store = fresh.store
	f.mu.Unlock()
	f.calls, f.logged = fresh.calls, 0
	f.clock.Store(fresh.clock.Load())
	return old.remove()
}

var errSnapshot = errors.New("the snapshot is damaged, or of a version that this node does not know")

// read fills an empty state.
func (f *fsm) read(r *bufio.Reader) error {
	head := make([]byte, len(snapshotMagic)+8)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return errSnapshot
	}
	f.clock.Store(int64(binary.BigEndian.Uint64(head[len(snapshotMagic):])))
	if err := f.readCalls(r); err != nil {
		return err
	}
	var count uint64
	for more := true; more; {
		err := f.store.Update(func(tx *bbolt.Tx) (err error) {
			var n uint64
			n, more, err = f.readRecords(r, pageOf(tx))
			count += n
			return err
		})
		if err != nil {
			return err
		}
	}
	var said [8]byte
	if _, err := io.ReadFull(r, said[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(said[:]) != count {
		return errSnapshot
	}
	return nil
}

func (f *fsm) readCalls(r *bufio.Reader) error {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	if n > maxCalls {
		return errSnapshot
	}
	raw := make([]byte, 16+4+1+8)
	for range n {
		if _, err := io.ReadFull(r, raw); err != nil {
			return err
		}
		c := call{ID: CallID(raw[:16]), Print: binary.BigEndian.Uint32(raw[16:])}
		c.Answer = answer{Code: code(raw[20]), Number: binary.BigEndian.Uint64(raw[21:])}
		if _, twice := f.calls.find(c.ID); twice {
			return errSnapshot
		}
		f.calls.add(c)
	}
	return nil
}

// readRecords reads as many records as make one transaction, and says whether there may be more.
func (f *fsm) readRecords(r *bufio.Reader, p page) (n uint64, more bool, err error) {
	p.records.FillPercent = 0.9 // they come in order
	for size := 0; size < restoreBatch; n++ {
		kind, err := r.ReadByte()
		switch {
		case err != nil:
			return n, false, err
		case kind == 0:
			return n, false, nil
		case kind != 1:
			return n, false, errSnapshot
		}
		path, err := readBytes(r, 1, maxPath)
		if err != nil {
			return n, false, err
		}
		raw, err := readBytes(r, recordHead, maxRecord)
		if err != nil {
			return n, false, err
		}
		grown, err := p.put(path, decodeRecord(raw))
		if err != nil {
			return n, false, err
		}
		f.store.size += grown
		size += len(path) + len(raw)
	}
	return n, true, nil
}

func readBytes(r *bufio.Reader, least, most uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n < least || n > most {
		return nil, errSnapshot
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}
