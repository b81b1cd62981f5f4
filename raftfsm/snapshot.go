package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// A snapshot is a magic word with the format's version, the length of the body and its CRC-32
// (Castagnoli), both big-endian, and the body: a Metadata message.
const (
	snapshotMagic = "wasmatrix-meta-1"
	snapshotLimit = 256 << 20 // bytes; far above what thousands of nodes take
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot returns the state as it is now.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.Metadata()}, nil }

// Restore replaces the state by a snapshot's. If that is damaged, nothing changes.
func (f *FSM) Restore(r io.ReadCloser) error {
	m, err := decode(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("restore the metadata: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resetLocked(m)
	f.wakeLocked()
	return nil
}

func (f *FSM) resetLocked(m *pb.Metadata) {
	f.clusterID = m.GetClusterId()
	f.nodes = make(map[string]*pb.Node, len(m.GetNodes()))
	for _, n := range m.GetNodes() {
		f.nodes[n.GetNodeId()] = n
	}
	f.providers = make(map[string]*pb.Provider, len(m.GetProviders()))
	for _, p := range m.GetProviders() {
		f.providers[p.GetProviderId()] = p
	}
	f.settings = maps.Clone(m.GetSettings())
	if f.settings == nil {
		f.settings = map[string]string{}
	}
}

type snapshot struct{ metadata *pb.Metadata }

// Persist writes the snapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	raw, err := encode(s.metadata)
	if err == nil {
		_, err = sink.Write(raw)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the metadata: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to give back: the snapshot is a copy.
func (snapshot) Release() {}

func encode(m *pb.Metadata) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	raw := []byte(snapshotMagic)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(body)))
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(body, castagnoli))
	return append(raw, body...), nil
}

func decode(r io.Reader) (*pb.Metadata, error) {
	head := make([]byte, len(snapshotMagic)+8)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("read the head: %w", err)
	}
	if !bytes.HasPrefix(head, []byte(snapshotMagic)) {
		return nil, errors.New("this is no snapshot of this version")
	}
	size := binary.BigEndian.Uint32(head[len(snapshotMagic):])
	if size > snapshotLimit {
		return nil, fmt.Errorf("the body claims %d bytes, more than %d", size, snapshotLimit)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	if len(body) != int(size) {
		return nil, fmt.Errorf("the body has %d of %d bytes", len(body), size)
	}
	if want, got := binary.BigEndian.Uint32(head[len(snapshotMagic)+4:]), crc32.Checksum(body, castagnoli); want != got {
		return nil, fmt.Errorf("the body's checksum is %08x, not %08x", got, want)
	}
	m := &pb.Metadata{}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("decode the body: %w", err)
	}
	return m, nil
}
