package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// seat is this node's part in one quorum: its log and snapshots on disk, and Raft running on them. A node
// has a new one when a new quorum is founded; nothing else of it stops for that.
type seat struct {
	stores

	quorum Quorum
	stream *quorumStream
	raft   *raft.Raft
}

// logFile is Raft's log, in the directory of its quorum.
const logFile = "raft.db"

// stores is what Raft keeps on disk.
type stores struct {
	bolt      *raftboltdb.BoltStore
	snapshots *raft.FileSnapshotStore
}

func (c *Cluster) openStores(dir string) (s stores, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, err
	}
	path := filepath.Join(dir, logFile)
	s.bolt, err = raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return s, fmt.Errorf("%s is in use: is another agent running on this data dir?", path)
	}
	if err != nil {
		return s, fmt.Errorf("open %s: %w", path, err)
	}
	s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, c.raftLogger())
	if err != nil {
		return s, errors.Join(fmt.Errorf("open the snapshots: %w", err), s.bolt.Close())
	}
	return s, nil
}

// openSeat opens the log and starts Raft. Without any state it waits to be founded or added.
func (c *Cluster) openSeat(q Quorum) (*seat, error) {
	dir := q.dir(c.cfg.DataDir)
	opened, err := c.openStores(dir)
	if err != nil {
		return nil, err
	}
	s := &seat{stores: opened, quorum: q, stream: &quorumStream{StreamLayer: c.openStream(), quorum: q, log: c.cfg.Log}}
	has, err := raft.HasExistingState(s.bolt, s.bolt, s.snapshots)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the log: %w", err), s.bolt.Close())
	}
	t := c.cfg.timing()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s.stream, MaxPool: 3, Timeout: raftIOTimeout, Logger: c.raftLogger(),
		ServerAddressProvider: addresses{c},
	})
	path := filepath.Join(dir, logFile)
	log := newWatchdog(s.bolt, t.diskHang, s.stream, c.cfg.Log)
	log.wrote = func(took time.Duration) { c.metrics.wrote(path, took) }
	log.hung = c.metrics.hangs.Inc
	snapshots := datedSnapshots{s.snapshots, c.metrics}
	if err = snapshots.look(); err == nil {
		s.raft, err = raft.NewRaft(c.raftConfig(t), c.fsm, log, s.bolt, snapshots, transport)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start raft: %w", err), transport.Close(), s.bolt.Close())
	}
	c.mu.Lock()
	named := c.clusterID != ""
	c.founded = c.founded || has || named || q != (Quorum{})
	c.mu.Unlock()
	if !has || named {
		return s, nil
	}
	id, err := c.idInLog(s.bolt)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	if id != "" {
		c.learnClusterID(id)
	}
	return s, nil
}

// stop stops Raft; what is on disk can still be read.
func (s *seat) stop() error { return s.raft.Shutdown().Error() }

// close stops Raft and closes its log. A second call does nothing.
func (s *seat) close() error { return errors.Join(s.stop(), s.bolt.Close()) }

func (s *seat) shut() bool { return s.raft.State() == raft.Shutdown }

// raft returns Raft as it runs now. One whose seat was left refuses everything as shut down.
func (c *Cluster) raft() *raft.Raft { return c.seat.Load().raft }
