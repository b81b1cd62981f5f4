package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Quorum names one of the quorums that a cluster has had: how often an operator had to found a new one,
// and which node did it last. A node has the Raft state of one quorum, and Raft traffic passes only
// between nodes of the same one; so voters of a quorum that was given up harm nobody when they come back.
type Quorum struct {
	Generation uint64 `json:"generation"`
	Founder    string `json:"founder,omitempty"`
}

// newerThan says which of two quorums stays: the one founded later. Of two that were founded on both sides of
// a cut, the one of the lower node id stays, so that all nodes decide alike.
func (q Quorum) newerThan(other Quorum) bool {
	return cmp.Or(cmp.Compare(q.Generation, other.Generation), strings.Compare(other.Founder, q.Founder)) > 0
}

// termsPerQuorum separates the terms of one quorum from those of the next, so that each term of a later
// one is higher than any of an earlier one, whoever heard of them: orders are fenced by term. An
// election a second uses them up in 31 years.
const termsPerQuorum = 1_000_000_000

// firstTerm is the term below which a quorum holds no election. known is the highest that was heard of.
func (q Quorum) firstTerm(known uint64) uint64 { return max(q.Generation*termsPerQuorum, known+1) }

// dir is where a quorum's log and snapshots are kept. Each has its own, so that to change from one to
// another is to write one small file.
func (q Quorum) dir(dataDir string) string {
	if q == (Quorum{}) {
		return dataDir
	}
	return filepath.Join(dataDir, fmt.Sprintf("quorum-%d-%s", q.Generation, q.Founder))
}

func quorumPath(dataDir string) string { return filepath.Join(dataDir, "quorum.json") }

// readQuorum returns the quorum that this node belongs to; without a file, the first one.
func readQuorum(dataDir string) (q Quorum, err error) {
	raw, err := os.ReadFile(quorumPath(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return Quorum{}, nil
	}
	if err != nil {
		return Quorum{}, fmt.Errorf("read which quorum this node belongs to: %w", err)
	}
	if err := json.Unmarshal(raw, &q); err != nil || (q.Generation == 0) != (q.Founder == "") || q.Founder != filepath.Base(filepath.Clean("/"+q.Founder)) && q.Founder != "" {
		return Quorum{}, fmt.Errorf("%s is damaged (%q): remove it, and the node learns from the others which quorum there is", quorumPath(dataDir), raw)
	}
	return q, nil
}

// writeQuorum makes a quorum this node's, for good.
func writeQuorum(dataDir string, q Quorum) error {
	raw, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return errors.Join(writeFile(quorumPath(dataDir), raw), syncDir(dataDir))
}

// syncDir makes the names in a directory survive a power cut.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Quorum returns the quorum that this node belongs to.
func (c *Cluster) Quorum() Quorum { return c.seat.Load().quorum }

// newestQuorum returns the newest quorum that was heard of.
func (c *Cluster) newestQuorum() Quorum {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newest
}

// followAgain is how soon a change of the quorum is tried again that the disk did not take.
const followAgain = time.Second

// followQuorum leaves a quorum that was given up as soon as a newer one is heard of.
func (c *Cluster) followQuorum(ctx context.Context) error {
	for {
		changed := c.Changed()
		var again <-chan time.Time
		if err := c.follow(c.newestQuorum()); err != nil {
			c.cfg.Log.ErrorContext(ctx, "this node could not follow the new quorum; trying again", "err", err)
			again = time.After(followAgain)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow takes a seat without vote or metadata in a newer quorum, whose leader gives it both. Once the quorum
// is written down, a restart does the same.
func (c *Cluster) follow(q Quorum) error {
	c.switching.Lock()
	defer c.switching.Unlock()
	old := c.seat.Load()
	if c.closed || !q.newerThan(old.quorum) && !old.shut() {
		return nil
	}
	if q.newerThan(old.quorum) {
		if err := writeQuorum(c.cfg.DataDir, q); err != nil {
			return fmt.Errorf("keep which quorum there is now: %w", err)
		}
		c.cfg.Log.Warn("a new quorum was founded: what this node had of the old one's log is set aside",
			"generation", q.Generation, "founder", q.Founder, "path", old.quorum.dir(c.cfg.DataDir))
	} else {
		q = old.quorum // it was left, and the new one could not be taken
	}
	if err := old.close(); err != nil {
		c.cfg.Log.Warn("the old quorum's log was not closed cleanly", "err", err)
	}
	c.fsm.Reset()
	return c.sit(q)
}

// sit takes this node's seat in a quorum, the one before being closed.
func (c *Cluster) sit(q Quorum) error {
	s, err := c.openSeat(q)
	if err != nil {
		return err
	}
	c.seat.Store(s)
	c.mu.Lock()
	if q.newerThan(c.newest) {
		c.newest = q
	}
	select {
	case c.news <- struct{}{}:
	default: // a token is there already
	}
	c.mu.Unlock()
	c.wake()
	return nil
}
