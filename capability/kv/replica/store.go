package replica

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/hashicorp/raft"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/wasmatrix/wasmatrix/capability"
)

// NotLeader is inside the error of a call to a [Store] whose node does not lead, or leads no more. The call may be
// sent again, to NodeID or where that is empty to any replica; a write with the same [CallID].
type NotLeader struct{ NodeID string }

func (e *NotLeader) Error() string {
	if e.NodeID == "" {
		return "no node is known to lead the replicas"
	}
	return "node " + e.NodeID + " leads the replicas"
}

func (g *Group) notLeader(s *seat) error {
	return capability.Errorf(capability.Unavailable, "the replicated keys are not served from here: %w", g.leaderOf(s))
}

// leaderOf returns who leads instead of this node.
func (g *Group) leaderOf(s *seat) *NotLeader {
	e := &NotLeader{}
	if s != nil {
		if _, id := s.raft.LeaderWithID(); string(id) != g.cfg.NodeID {
			e.NodeID = string(id)
		}
	}
	return e
}

// NewCallID returns the number of a new write.
func NewCallID() CallID {
	var id CallID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

type callIDKey struct{}

// WithCallID says which call a write belongs to that is made with the context: a repetition has the same. Without
// one, each write is a call of its own.
func WithCallID(ctx context.Context, id CallID) context.Context {
	return context.WithValue(ctx, callIDKey{}, id)
}

// Store is the keys of one provider.
type Store struct {
	group    *Group
	provider string
}

var _ capability.KV = (*Store)(nil)

// Store returns the keys of a provider. It is there for as long as the group, and needs no Close.
func (g *Group) Store(providerID string) *Store { return &Store{group: g, provider: providerID} }

// Close does nothing: the group goes on.
func (s *Store) Close() error { return nil }

// Check says whether the store serves: from here, or from another node that is known.
func (s *Store) Check(ctx context.Context) error {
	at := s.group.current()
	switch id, self := s.group.Leader(); {
	case self:
		return ended(s.group.confirm(ctx, at))
	case id == "":
		return s.group.notLeader(at)
	}
	return nil
}

// Get reads a key.
func (s *Store) Get(ctx context.Context, bucket, key string) (e capability.Entry, err error) {
	err = s.read(ctx, bucket, key, func(p page, now int64) error {
		r, ok := p.read(path(s.provider, bucket, key), now)
		if !ok {
			return capability.Errorf(capability.NotFound, "there is no key %q in bucket %q", key, bucket)
		}
		e = capability.Entry{Value: append([]byte{}, r.Value...), Revision: r.Revision}
		return nil
	})
	return e, err
}

// Exists says whether there is a key.
func (s *Store) Exists(ctx context.Context, bucket, key string) (revision uint64, ok bool, err error) {
	err = s.read(ctx, bucket, key, func(p page, now int64) error {
		var r record
		r, ok = p.read(path(s.provider, bucket, key), now)
		revision = r.Revision
		return nil
	})
	if !ok {
		revision = 0
	}
	return revision, ok, err
}

// Set writes a key.
func (s *Store) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (revision uint64, err error) {
	if len(value) > capability.MaxValue {
		return 0, capability.Errorf(capability.Exhausted, "a value of %d bytes: at most %d", len(value), capability.MaxValue)
	}
	if o.TTL < 0 {
		return 0, capability.Errorf(capability.InvalidRequest, "a time to live of %s", o.TTL)
	}
	return s.write(ctx, &command{Op: opSet, Bucket: bucket, Key: key, TTL: o.TTL, IfRevision: o.IfRevision, Value: value})
}

// Delete removes a key.
func (s *Store) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (existed bool, err error) {
	n, err := s.write(ctx, &command{Op: opDelete, Bucket: bucket, Key: key, IfRevision: ifRevision})
	return n == 1, err
}

// Increment adds to a number.
func (s *Store) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	n, err := s.write(ctx, &command{Op: opIncrement, Bucket: bucket, Key: key, By: by})
	return int64(n), err
}

// List returns a page of keys.
func (s *Store) List(ctx context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	if limit <= 0 || limit > capability.MaxList {
		limit = capability.MaxList
	}
	err = s.read(ctx, bucket, "k", func(p page, now int64) error {
		base := path(s.provider, bucket, "")
		within := append(bytes.Clone(base), prefix...)
		from := within
		if after != "" && after >= prefix {
			from = append(append(bytes.Clone(base), after...), 0)
		}
		c := p.records.Cursor()
		for k, raw := c.Seek(from); k != nil && bytes.HasPrefix(k, within); k, raw = c.Next() {
			if decodeRecord(raw).expired(now) {
				continue
			}
			if len(keys) == limit {
				more = true
				return nil
			}
			keys = append(keys, string(k[len(base):]))
		}
		return nil
	})
	return keys, more, err
}

func valid(ctx context.Context, bucket, key string) error {
	if err := ctx.Err(); err != nil {
		return ended(err)
	}
	if bucket == "" || len(bucket) > maxName {
		return capability.Errorf(capability.InvalidRequest, "the name of a bucket has %d bytes: want 1 to %d", len(bucket), maxName)
	}
	return capability.ValidateKey(key)
}

// leading returns the seat, if it serves.
func (g *Group) leading() (*seat, error) {
	s := g.current()
	if s == nil || !s.leads() {
		return nil, g.notLeader(s)
	}
	return s, nil
}

// read reads what all writes have left that were answered before.
func (s *Store) read(ctx context.Context, bucket, key string, fn func(p page, now int64) error) error {
	if err := valid(ctx, bucket, key); err != nil {
		return err
	}
	at, err := s.group.leading()
	if err != nil {
		return err
	}
	if err := s.group.confirm(ctx, at); err != nil {
		return ended(err)
	}
	err = at.fsm.view(func(p page) error { return fn(p, at.fsm.now()) })
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) { // this node has just left its seat
		return s.group.notLeader(nil)
	}
	return ended(err)
}

// write has the group agree on a command and returns the number that it came to.
func (s *Store) write(ctx context.Context, c *command) (uint64, error) {
	if err := valid(ctx, c.Bucket, c.Key); err != nil {
		return 0, err
	}
	at, err := s.group.leading()
	if err != nil {
		return 0, err
	}
	if wanted := len(s.group.wantedGroup().GetVoters()); wanted > 1 && len(votersOf(at.raft)) == 1 {
		// Just founded, or grown out of a cluster of one: what was acknowledged now would die with this node.
		return 0, capability.Errorf(capability.Unavailable, "the replicas are being gathered: of %d there is one", wanted)
	}
	c.Provider = s.provider
	if id, ok := ctx.Value(callIDKey{}).(CallID); ok {
		c.CallID = id
	} else {
		c.CallID = NewCallID()
	}
	weight := int64(len(c.Value)) + callOverhead
	if err := at.pending.Acquire(ctx, weight); err != nil {
		return 0, ended(err)
	}
	type outcome struct {
		answer answer
		err    error
	}
	done := make(chan outcome, 1)
	go func() { // ends with the future, or as a remainder of a Raft that was stopped
		defer at.pending.Release(weight)
		c.Now = time.Now().UnixNano()
		f := at.raft.Apply(c.encode(), enqueueTimeout)
		o := outcome{err: f.Error()}
		if o.err == nil {
			o.answer, _ = f.Response().(answer)
		}
		done <- o
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return 0, s.group.writeError(at, o.err)
		}
		return o.answer.Number, o.answer.err()
	case <-at.gone:
		return 0, s.group.writeError(at, raft.ErrRaftShutdown)
	case <-ctx.Done():
		return 0, ended(ctx.Err())
	}
}

// writeError says what became of a write that Raft gave up.
func (g *Group) writeError(s *seat, err error) error {
	if errors.Is(err, raft.ErrEnqueueTimeout) {
		return capability.Errorf(capability.Unavailable, "the replicas take no more writes for now: %w", err)
	}
	e := g.leaderOf(s)
	return capability.Errorf(capability.Unavailable, "the write was given up (%v), and may have been done: %w", err, e)
}

// ended gives an error its form; nil stays nil.
func ended(err error) error {
	if e := capability.FromError(err); e != nil {
		return e
	}
	return nil
}
