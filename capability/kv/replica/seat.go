package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/semaphore"
)

// place is which founding of the group a node belongs to, and in which directory its log is. It is one small file,
// and to change over is to write it.
type place struct {
	identity

	Dir string `json:"dir"`
	// This node founds the group, and has not written its first configuration for sure.
	Founding bool `json:"founding,omitempty"`
}

func placePath(dir string) string { return filepath.Join(dir, "group.json") }

// readPlace returns the place that a node has, if any.
func readPlace(dir string) (p place, ok bool, err error) {
	raw, err := os.ReadFile(placePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("read which group of replicas this node is in: %w", err)
	}
	if err := json.Unmarshal(raw, &p); err != nil || p.Generation == 0 || p.Dir == "" || p.Dir != filepath.Base(p.Dir) {
		return p, false, fmt.Errorf("%s is damaged (%q): move it away together with its directory, and this node joins the group anew", placePath(dir), raw)
	}
	return p, true, nil
}

// writePlace makes a place this node's, for good.
func writePlace(dir string, p place) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "group-*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), placePath(dir))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory survive a power cut.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// seat is this node's part in one founding of the group: its log on disk, and Raft running on it.
type seat struct {
	place

	gate      *gate
	bolt      *raftboltdb.BoltStore
	snapshots *raft.FileSnapshotStore
	transport *raft.NetworkTransport
	fsm       *fsm
	raft      *raft.Raft
	pending   *semaphore.Weighted // the bytes of writes under way
	ready     atomic.Uint64       // the term in which this node leads and has caught up with all before
	gone      chan struct{}       // closed when Raft is stopped
	confirmer confirmer

	mu     sync.Mutex // guards asked
	asked  map[string]*asker
	closed bool
}

// openSeat opens the log and starts Raft.
func (g *Group) openSeat(ctx context.Context, p place) (s *seat, err error) {
	dir := filepath.Join(g.cfg.Dir, p.Dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s = &seat{place: p, pending: semaphore.NewWeighted(maxPendingBytes), asked: map[string]*asker{}, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	file := filepath.Join(dir, "raft.db")
	s.bolt, err = raftboltdb.New(raftboltdb.Options{
		Path:                    file,
		MsgpackUseNewTimeFormat: true,
		BoltOptions:             &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return s, fmt.Errorf("%s is in use: is another agent running on this data dir?", file)
	}
	if err != nil {
		return s, fmt.Errorf("open %s: %w", file, err)
	}
	if s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, g.logger()); err != nil {
		return s, fmt.Errorf("open the snapshots: %w", err)
	}
	stream := g.cfg.OpenStream()
	s.gate = newGate(stream, p.identity, g.cfg.Log)
	if p.Founding {
		if err := g.found(ctx, s); err != nil {
			return s, err
		}
	}
	if s.fsm, err = newFSM(g.working(), g.cfg.Log); err != nil {
		return s, err
	}
	s.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s.gate, MaxPool: 3, Timeout: g.timing.io, Logger: g.logger(), ServerAddressProvider: addresses{g},
		MsgpackUseNewTimeFormat: true,
	})
	log, err := raft.NewLogCache(cachedLogs, newWatchdog(s.bolt, g.timing.diskHang, stream, g.cfg.Log))
	if err != nil {
		return s, err
	}
	if s.raft, err = raft.NewRaft(g.raftConfig(), s.fsm, log, s.bolt, s.snapshots, s.transport); err != nil {
		return s, fmt.Errorf("start raft: %w", err)
	}
	answer := func() standing { return standing{Term: s.raft.CurrentTerm(), LastIndex: s.raft.LastIndex()} }
	s.gate.answer.Store(&answer)
	return s, nil
}

// found writes the first configuration: this node alone. What it has of an earlier founding stays, committed or not:
// what others had acknowledged is among it if anywhere.
func (g *Group) found(ctx context.Context, s *seat) error {
	has, err := raft.HasExistingState(s.bolt, s.bolt, s.snapshots)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	alone := raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(g.cfg.NodeID), Address: raft.ServerAddress(s.gate.Addr().String()), Suffrage: raft.Voter,
	}}}
	_, spells := raft.NewInmemTransport(raft.ServerAddress(s.gate.Addr().String())) // it only spells addresses here
	switch {
	case has:
		scratch, err := newFSM(g.working(), g.cfg.Log)
		if err != nil {
			return err
		}
		err = raft.RecoverCluster(g.raftConfig(), scratch, s.bolt, s.bolt, s.snapshots, spells, alone)
		if err = errors.Join(err, scratch.close()); err != nil {
			return fmt.Errorf("found the group on what this node has: %w", err)
		}
	case g.foundedBefore(ctx, s):
		// This node lost its disk, and the others have what it founded: they will add it.
		g.cfg.Log.WarnContext(ctx, "this node founded the group of replicas and has lost it; it waits to be added by the others")
	default:
		if err := raft.BootstrapCluster(g.raftConfig(), s.bolt, s.bolt, s.snapshots, spells, alone); err != nil {
			return fmt.Errorf("found the group: %w", err)
		}
	}
	s.Founding = false
	return writePlace(g.cfg.Dir, s.place)
}

// foundedBefore asks the other voters whether they have a log of this founding.
func (g *Group) foundedBefore(ctx context.Context, s *seat) bool {
	for _, v := range g.wantedGroup().GetVoters() {
		if v.GetNodeId() == g.cfg.NodeID || ctx.Err() != nil {
			continue
		}
		if they, err := g.ask(s, keeper, v.GetNodeId()); err == nil && they.LastIndex > 0 {
			return true
		}
	}
	return false
}

// working is where the working stores are, which are deleted at each start.
func (g *Group) working() string { return filepath.Join(g.cfg.Dir, "working") }

// close stops what was started. A second call does nothing.
func (s *seat) close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	asked := s.asked
	s.asked = nil
	s.mu.Unlock()
	var err error
	if s.gate != nil {
		err = s.gate.Close() // first, as Raft would wait for what is still said
	}
	if s.raft != nil {
		err = errors.Join(err, s.raft.Shutdown().Error())
	}
	close(s.gone)
	if s.transport != nil {
		err = errors.Join(err, s.transport.Close())
	}
	for _, a := range asked {
		a.close()
	}
	if s.bolt != nil {
		err = errors.Join(err, s.bolt.Close())
	}
	if s.fsm != nil {
		err = errors.Join(err, s.fsm.close())
	}
	return err
}

// Those who ask, each over connections of its own, so that none waits for another.
const (
	keeper = "keeper " // of the members
	reader = "reader "
)

// wait waits for Raft, but not longer than ctx or than Raft runs: it does not complete what was committed and not
// applied when it was stopped.
func (s *seat) wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends with the future, or as a remainder of a Raft that was stopped
	select {
	case err := <-done:
		return err
	case <-s.gone:
		return raft.ErrRaftShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askerOf returns the connection by which a peer is asked, or nil once the seat is closed.
func (s *seat) askerOf(key string) *asker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	a := s.asked[key]
	if a == nil {
		a = &asker{}
		s.asked[key] = a
	}
	return a
}

// ask returns what a peer says of itself now.
func (g *Group) ask(s *seat, who, nodeID string) (standing, error) {
	a := s.askerOf(who + nodeID)
	if a == nil {
		return standing{}, raft.ErrRaftShutdown
	}
	return a.ask(s.gate, g.addrOf(nodeID), g.timing.ask)
}

// leads says whether this node leads and has applied all that earlier leaders wrote.
func (s *seat) leads() bool {
	return s.raft.State() == raft.Leader && s.ready.Load() == s.raft.CurrentTerm()
}

func (g *Group) raftConfig() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(g.cfg.NodeID)
	r.HeartbeatTimeout, r.ElectionTimeout = g.timing.heartbeat, g.timing.election
	r.LeaderLeaseTimeout, r.CommitTimeout = g.timing.lease, g.timing.commit
	r.TrailingLogs = trailingLogs
	r.SnapshotThreshold = 1 << 62 // keepLog decides, by size
	r.ShutdownOnRemove = false    // a node that is out today may be in tomorrow
	r.NoLegacyTelemetry = true
	r.Logger = g.logger()
	return r
}

// addresses gives Raft the addresses that gossip knows now, whatever the log remembers.
type addresses struct{ *Group }

// ServerAddr returns where a node serves the group.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr := a.addrOf(string(id)); addr != "" {
		return raft.ServerAddress(addr), nil
	}
	return "", fmt.Errorf("nobody knows the address of node %s", id)
}

// addrOf returns where a node serves the group: as gossip says, or else as the metadata's leader did.
func (g *Group) addrOf(nodeID string) string {
	if addr := g.cfg.Addr(nodeID); addr != "" {
		return addr
	}
	voters := g.wantedGroup().GetVoters()
	if n := slices.IndexFunc(voters, func(v *placeOf) bool { return v.GetNodeId() == nodeID }); n >= 0 {
		return voters[n].GetRpcAddr()
	}
	return ""
}

func (g *Group) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Info, DisableTime: true, Output: lineLog{g.cfg.Log}})
}

// lineLog passes the lines of Raft on to a structured log, as details: what matters of them is said by this
// package itself.
type lineLog struct{ log *slog.Logger }

// Write passes one line on.
func (l lineLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if strings.HasPrefix(text, "[ERR") {
		level = slog.LevelInfo
	}
	if _, rest, ok := strings.Cut(text, "] "); ok {
		text = strings.TrimSpace(rest)
	}
	l.log.Log(context.Background(), level, "a library says", "part", "replica", "text", text)
	return len(line), nil
}
