package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	etcdpb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// leaseTTL is how long the keys of nodes stay when no leader says any more that they are there.
	leaseTTL = 20 * time.Second
	// A transaction takes 128 operations where nobody has changed etcd's defaults, and 1.5 MiB.
	opsAtOnce   = 100
	bytesAtOnce = 512 << 10
)

// errOvertaken says that a leader of a later term writes.
var errOvertaken = errors.New("a later leader writes the mirror")

// termBits is how much of a lease's number is the Raft term. A thousand quorums fit in; etcd's numbers have 63 bits.
const termBits = 40

// leaseOf returns the number of a leader's lease: which cluster it is of, and the term. Of two leaders of a cluster
// the later one has the higher number.
func leaseOf(clusterID string, term uint64) int64 {
	h := fnv.New64a()
	h.Write([]byte(clusterID)) // never fails
	return int64(h.Sum64()>>(termBits+1))<<termBits | int64(min(term, 1<<termBits-1))
}

// sameCluster says of two leases whether their leaders are of one cluster.
func sameCluster(a, b int64) bool { return a>>termBits == b>>termBits }

// session is what one leader has going with etcd, in one term.
type session struct {
	keys   keys
	lease  int64
	etcd   *clientv3.Client
	leases etcdpb.LeaseClient
	cancel context.CancelFunc
	beat   etcdpb.Lease_LeaseKeepAliveClient // nil before the first

	written map[string]written // by key
}

// written is a key as this leader wrote it last.
type written struct {
	value    string
	revision int64
}

// open returns a session. ctx is the one that the connection lives in.
func (c Config) open(ctx context.Context, clusterID string, term uint64) (*session, error) {
	ctx, cancel := context.WithCancel(ctx)
	etcd, err := c.client(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	return &session{
		keys: keysOf(clusterID), lease: leaseOf(clusterID, term),
		etcd: etcd, leases: etcdpb.NewLeaseClient(etcd.ActiveConnection()), cancel: cancel,
		written: map[string]written{},
	}, nil
}

func (s *session) close() {
	s.cancel()
	_ = s.etcd.Close() // it says only that its context has ended
}

// copy makes etcd hold all of want, and nothing else under the session's keys.
func (s *session) copy(ctx context.Context, want map[string]string) error {
	if err := s.keepLease(ctx); err != nil {
		return fmt.Errorf("keep the lease: %w", err)
	}
	there, err := s.look(ctx)
	if err != nil {
		return fmt.Errorf("look at the keys: %w", err)
	}
	if err := s.evict(ctx, there); err != nil {
		return fmt.Errorf("remove nodes on leases of others: %w", err)
	}
	var ops []clientv3.Op
	size := 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		err := s.commit(ctx, ops)
		ops, size = nil, 0
		return err
	}
	add := func(op clientv3.Op) error {
		ops = append(ops, op)
		size += len(op.KeyBytes()) + len(op.ValueBytes())
		if len(ops) < opsAtOnce && size < bytesAtOnce {
			return nil
		}
		return flush()
	}
	for _, key := range slices.Sorted(maps.Keys(want)) { // nodes come first, and put up the fence for the rest
		if w, ok := s.written[key]; ok && w == (written{want[key], there[key].revision}) {
			continue
		}
		if err := add(s.put(key, want[key])); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(there)) {
		if _, wanted := want[key]; wanted {
			continue
		}
		if err := add(clientv3.OpDelete(key)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	if err := flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (s *session) put(key, value string) clientv3.Op {
	if s.keys.ofNode(key) {
		return clientv3.OpPut(key, value, clientv3.WithLease(clientv3.LeaseID(s.lease)))
	}
	return clientv3.OpPut(key, value)
}

// keepLease has the lease run its whole time from now, and takes it out where there is none.
func (s *session) keepLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	left, err := s.keepAlive(ctx)
	if err != nil || left > 0 {
		return err
	}
	_, err = s.leases.LeaseGrant(ctx, &etcdpb.LeaseGrantRequest{ID: s.lease, TTL: int64(leaseTTL.Seconds())})
	if err = rpctypes.Error(err); errors.Is(err, rpctypes.ErrLeaseExist) { // the answer to an earlier request was lost
		return nil
	}
	return err
}

// keepAlive returns for how many seconds the lease is good again; 0 where there is none. It uses one stream as long as that
// lives: the client makes etcd check the password for each new one. The client's own KeepAliveOnce
// spins while there is no connection.
func (s *session) keepAlive(ctx context.Context) (left int64, err error) {
	defer context.AfterFunc(ctx, s.cancel)() // whoever does not answer in time is left; all of the session ends with it
	if s.beat == nil {
		if s.beat, err = s.leases.LeaseKeepAlive(s.etcd.Ctx()); err != nil {
			return 0, rpctypes.Error(err)
		}
	}
	if err := s.beat.Send(&etcdpb.LeaseKeepAliveRequest{ID: s.lease}); err != nil {
		return 0, rpctypes.Error(err)
	}
	resp, err := s.beat.Recv()
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	return resp.GetTTL(), nil
}

// seen is a key as it is in etcd.
type seen struct{ revision, lease int64 }

// look returns the session's keys that are there. It asks for no values.
func (s *session) look(ctx context.Context) (map[string]seen, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	there := map[string]seen{}
	for _, prefix := range []string{s.keys.nodes, s.keys.providers} {
		resp, err := s.etcd.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			return nil, err
		}
		for _, kv := range resp.Kvs {
			there[string(kv.Key)] = seen{revision: kv.ModRevision, lease: kv.Lease}
		}
	}
	return there, nil
}

// evict deletes the keys of nodes that somebody has hung on a lease which is no leader's of this cluster. With a higher
// number it would hold up the fence for ever.
func (s *session) evict(ctx context.Context, there map[string]seen) error {
	var guards []clientv3.Cmp
	var ops []clientv3.Op
	for key, kv := range there {
		if kv.lease <= s.lease || !s.keys.ofNode(key) || len(ops) == opsAtOnce {
			continue
		}
		if sameCluster(kv.lease, s.lease) {
			return errOvertaken
		}
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", kv.revision))
		ops = append(ops, clientv3.OpDelete(key))
	}
	if len(ops) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.etcd.Txn(ctx).If(guards...).Then(ops...).Commit()
	return err
}

// commit carries out ops, unless a node hangs on a later leader's lease.
func (s *session) commit(ctx context.Context, ops []clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	noLater := clientv3.Compare(clientv3.LeaseValue(s.keys.nodes).WithPrefix(), "<", s.lease+1)
	resp, err := s.etcd.Txn(ctx).If(noLater).Then(ops...).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return errOvertaken
	}
	for _, op := range ops {
		key := string(op.KeyBytes())
		if op.IsPut() {
			s.written[key] = written{value: string(op.ValueBytes()), revision: resp.Header.Revision}
		} else {
			delete(s.written, key)
		}
	}
	return nil
}
