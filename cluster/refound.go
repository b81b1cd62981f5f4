package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/hashicorp/raft"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
)

// RaftState is this node's part in the quorum, as it sees it alone.
type RaftState struct {
	Quorum                    Quorum
	Leads                     bool
	Term                      uint64
	LastIndex, LastTerm       uint64 // of the newest entry; 0 where there is no log and no snapshot
	CommitIndex, AppliedIndex uint64
	VoterIDs                  []string // as the newest configuration says that it knows
}

// RaftState returns this node's part in the quorum.
func (c *Cluster) RaftState() RaftState {
	s := c.seat.Load()
	stats := s.raft.Stats()
	number := func(key string) uint64 {
		n, err := strconv.ParseUint(stats[key], 10, 64)
		if err != nil {
			return 0 // one that is not there
		}
		return n
	}
	return RaftState{
		Quorum: s.quorum, Leads: c.Leadership().Self, Term: s.raft.CurrentTerm(),
		LastIndex: s.raft.LastIndex(), LastTerm: max(number("last_log_term"), number("last_snapshot_term")),
		CommitIndex: s.raft.CommitIndex(), AppliedIndex: s.raft.AppliedIndex(), VoterIDs: c.configuredVoters(),
	}
}

// RaftStats returns what Raft says of itself, for people.
func (c *Cluster) RaftStats() map[string]string { return c.raft().Stats() }

// FoundQuorum makes this node the only voter of a new quorum, whose leader chooses further ones. It starts
// from all that is in this node's log, committed or not: what the dead had acknowledged is among it if
// anywhere. Nothing else of this node stops. givenUp are nodes for whose return nobody is to wait.
//
// The new quorum is prepared beside the old one's log, and becomes this node's by one small file: whoever
// dies before that is of the old quorum, and may be asked again.
func (c *Cluster) FoundQuorum(givenUp []string) error {
	c.switching.Lock()
	defer c.switching.Unlock()
	old := c.seat.Load()
	if _, leader := old.raft.LeaderWithID(); c.closed || old.shut() || leader != "" {
		return fmt.Errorf("the old quorum is not gone (leader %q), or this node is closing", leader)
	}
	q := Quorum{Generation: max(old.quorum.Generation, c.newestQuorum().Generation) + 1, Founder: c.cfg.NodeID}
	c.cfg.Log.Warn("founding a new quorum, as was asked", "generation", q.Generation, "given_up", givenUp)
	err := old.stop()
	if err == nil {
		err = c.prepare(q, old, givenUp)
	}
	if err == nil {
		err = writeQuorum(c.cfg.DataDir, q)
	}
	err = errors.Join(err, old.bolt.Close())
	if err != nil {
		c.fsm.Reset() // its log is read anew
		return errors.Join(fmt.Errorf("found a new quorum: %w; nothing was changed", err), c.sit(old.quorum))
	}
	c.mu.Lock()
	c.newest = q // from here on there is no way back, and followQuorum goes on where this fails
	c.mu.Unlock()
	defer c.wake()
	if err := c.sit(q); err != nil {
		return fmt.Errorf("the new quorum is founded, and its log could not be opened yet: %w; the node goes on trying", err)
	}
	return nil
}

// prepare writes the log that a new quorum starts from: a snapshot with this node as the only voter, and a
// term above all that anybody has heard.
func (c *Cluster) prepare(q Quorum, old *seat, givenUp []string) error {
	fsm, index, term, err := replay(old.stores)
	if err != nil {
		return err
	}
	if fsm.ClusterID() == "" { // this node never had the metadata
		if err := command(fsm, &pb.Command{Op: &pb.Command_FoundCluster{FoundCluster: &pb.FoundCluster{ClusterId: c.ClusterID()}}}); err != nil {
			return err
		}
	}
	for _, id := range givenUp {
		if _, known := fsm.Node(id); !known {
			continue
		}
		if err := command(fsm, &pb.Command{Op: &pb.Command_GiveUpNode{GiveUpNode: &pb.GiveUpNode{NodeId: id}}}); err != nil {
			return err
		}
	}
	c.mu.Lock()
	known := max(term, old.raft.CurrentTerm(), c.hint.Term)
	c.mu.Unlock()
	dir := q.dir(c.cfg.DataDir)
	if err := os.RemoveAll(dir); err != nil { // an attempt that was cut short
		return err
	}
	s, err := c.openStores(dir)
	if err != nil {
		return err
	}
	err = c.writeFirst(s, fsm, max(index, 1), max(term, 1))
	if err == nil {
		err = s.bolt.SetUint64([]byte("CurrentTerm"), q.firstTerm(known)) // Raft's own key
	}
	return errors.Join(err, s.bolt.Close(), syncDir(c.cfg.DataDir))
}

func (c *Cluster) writeFirst(s stores, fsm *raftfsm.FSM, index, term uint64) error {
	alone := raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(c.cfg.NodeID), Address: raft.ServerAddress(c.ownAddr()), Suffrage: raft.Voter,
	}}}
	_, addresses := raft.NewInmemTransport(raft.ServerAddress(c.ownAddr())) // it only spells addresses here
	sink, err := s.snapshots.Create(raft.SnapshotVersionMax, index, term, alone, 1, addresses)
	if err != nil {
		return err
	}
	snapshot, err := fsm.Snapshot()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return snapshot.Persist(sink) // which closes the sink
}

// replay reads all that a stopped Raft has on disk, up to the last entry.
func replay(s stores) (fsm *raftfsm.FSM, index, term uint64, err error) {
	fsm = raftfsm.New()
	all, err := s.snapshots.List()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("list the snapshots: %w", err)
	}
	var damaged error
	for _, meta := range all { // the newest first
		_, source, err := s.snapshots.Open(meta.ID)
		if err == nil {
			err = fsm.Restore(source)
		}
		if err == nil {
			index, term, damaged = meta.Index, meta.Term, nil
			break
		}
		damaged = errors.Join(damaged, err)
	}
	if damaged != nil {
		return nil, 0, 0, fmt.Errorf("no snapshot can be read: %w", damaged)
	}
	last, err := s.bolt.LastIndex()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read the log: %w", err)
	}
	for next := index + 1; next <= last; next++ {
		entry := &raft.Log{}
		if err := s.bolt.GetLog(next, entry); err != nil {
			return nil, 0, 0, fmt.Errorf("read entry %d of the log: %w", next, err)
		}
		if entry.Type == raft.LogCommand {
			fsm.Apply(entry) // what it refuses now it refused then
		}
		index, term = entry.Index, entry.Term
	}
	return fsm, index, term, nil
}

// command has an FSM of no Raft carry out a command.
func command(fsm *raftfsm.FSM, cmd *pb.Command) error {
	entry, err := encode(cmd)
	if err != nil {
		return err
	}
	if refused, ok := fsm.Apply(&raft.Log{Data: entry}).(error); ok {
		return refused
	}
	return nil
}

// RemoveVoter takes a node's vote away; only on the leader.
func (c *Cluster) RemoveVoter(ctx context.Context, nodeID string) error {
	return wait(ctx, c.raft().RemoveServer(raft.ServerID(nodeID), 0, enqueueTimeout))
}

// TransferLeadershipTo hands leadership to a certain voter.
func (c *Cluster) TransferLeadershipTo(ctx context.Context, nodeID string) error {
	return wait(ctx, c.raft().LeadershipTransferToServer(raft.ServerID(nodeID), raft.ServerAddress(c.addrOf(nodeID))))
}
