package kv

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

// etcdEngine keeps a key under /wasmatrix.kv/PROVIDER/BUCKET/KEY, where its last part is as it is. Revisions are etcd's
// own. A key that expires has a lease of its own, which is ended with it.
type etcdEngine struct {
	cfg    clientv3.Config
	prefix string

	mu     sync.Mutex // guards what follows
	opened *clientv3.Client
	closed bool
}

const (
	etcdDial      = 5 * time.Second
	etcdKeepAlive = 10 * time.Second
	// etcd refuses longer leases.
	etcdLongestLease = 9_000_000_000 // seconds
)

func openEtcd(cfg Config, b backend) Engine {
	e := &etcdEngine{prefix: "/wasmatrix.kv/" + escape(cfg.ProviderID, '%', "-._") + "/"}
	e.cfg = clientv3.Config{
		Endpoints: b.hosts, Username: b.user, Password: b.password,
		DialTimeout: etcdDial, DialKeepAliveTime: etcdKeepAlive, DialKeepAliveTimeout: etcdDial,
		Logger: zap.NewNop(), // each error is the answer to a call as well
	}
	return e
}

// client returns the client, which with a password can only be made while etcd answers.
func (e *etcdEngine) client() (*clientv3.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, capability.Errorf(capability.Unavailable, "the provider was stopped")
	}
	if e.opened == nil {
		c, err := clientv3.New(e.cfg)
		if err != nil {
			return nil, err
		}
		e.opened = c
	}
	return e.opened, nil
}

// Close ends the connections.
func (e *etcdEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.opened == nil {
		return nil
	}
	return e.opened.Close()
}

func (e *etcdEngine) bucket(bucket string) string {
	return e.prefix + escape(bucket, '%', "-._") + "/"
}

func (e *etcdEngine) read(ctx context.Context, bucket, key string, o ...clientv3.OpOption) (*mvccpb.KeyValue, error) {
	c, err := e.client()
	if err != nil {
		return nil, err
	}
	got, err := c.Get(ctx, e.bucket(bucket)+key, o...)
	if err != nil || len(got.Kvs) == 0 {
		return nil, err
	}
	return got.Kvs[0], nil
}

// Check asks etcd for a key that is not there.
func (e *etcdEngine) Check(ctx context.Context) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	_, err = c.Get(ctx, e.prefix)
	return err
}

// Get reads a key.
func (e *etcdEngine) Get(ctx context.Context, bucket, key string) (capability.Entry, error) {
	kv, err := e.read(ctx, bucket, key)
	switch {
	case err != nil:
		return capability.Entry{}, err
	case kv == nil:
		return capability.Entry{}, notFound(bucket, key)
	}
	return capability.Entry{Value: kv.Value, Revision: uint64(kv.ModRevision)}, nil
}

// Exists says whether there is a key.
func (e *etcdEngine) Exists(ctx context.Context, bucket, key string) (uint64, bool, error) {
	kv, err := e.read(ctx, bucket, key, clientv3.WithKeysOnly())
	return uint64(kv.GetModRevision()), kv != nil, err
}

// atRevision is the condition that a key is at a revision, 0 meaning that it is not there; false where no key can be.
func atRevision(key string, revision uint64) (clientv3.Cmp, bool) {
	return clientv3.Compare(clientv3.ModRevision(key), "=", int64(revision)), revision <= math.MaxInt64
}

// change makes one change if the key is at a revision, and returns its answer or a conflict.
func change(ctx context.Context, c *clientv3.Client, key string, ifRevision *uint64, op clientv3.Op) (*clientv3.TxnResponse, error) {
	var conditions []clientv3.Cmp
	if ifRevision != nil {
		condition, possible := atRevision(key, *ifRevision)
		if !possible {
			return nil, capability.Errorf(capability.Conflict, "the key is at a lower revision, or not there")
		}
		conditions = append(conditions, condition)
	}
	done, err := c.Txn(ctx).If(conditions...).Then(op).Else(clientv3.OpGet(key, clientv3.WithKeysOnly())).Commit()
	if err != nil {
		return nil, err
	}
	if !done.Succeeded {
		if kvs := done.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
			return nil, conflict(uint64(kvs[0].ModRevision))
		}
		return nil, conflict(0)
	}
	return done, nil
}

// Set writes a key.
func (e *etcdEngine) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	c, err := e.client()
	if err != nil {
		return 0, err
	}
	at := e.bucket(bucket) + key
	options := []clientv3.OpOption{clientv3.WithPrevKV()}
	var lease clientv3.LeaseID
	if o.TTL > 0 {
		seconds := min(int64(o.TTL/time.Second)+1, etcdLongestLease)
		if o.TTL%time.Second == 0 {
			seconds = min(int64(o.TTL/time.Second), etcdLongestLease)
		}
		granted, err := c.Grant(ctx, seconds)
		if err != nil {
			return 0, err
		}
		lease = granted.ID
		options = append(options, clientv3.WithLease(lease))
	}
	done, err := change(ctx, c, at, o.IfRevision, clientv3.OpPut(at, string(value), options...))
	if err != nil {
		if capability.FromError(err).Status == capability.Conflict {
			e.end(ctx, c, lease)
		}
		return 0, err
	}
	e.end(ctx, c, clientv3.LeaseID(done.Responses[0].GetResponsePut().GetPrevKv().GetLease()))
	return uint64(done.Header.GetRevision()), nil
}

// end ends a lease that holds nothing any more. If it can't be, it ends by itself.
func (e *etcdEngine) end(ctx context.Context, c *clientv3.Client, lease clientv3.LeaseID) {
	if lease != clientv3.NoLease {
		_, _ = c.Revoke(ctx, lease)
	}
}

// Delete removes a key.
func (e *etcdEngine) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	c, err := e.client()
	if err != nil {
		return false, err
	}
	at := e.bucket(bucket) + key
	done, err := change(ctx, c, at, ifRevision, clientv3.OpDelete(at, clientv3.WithPrevKV()))
	if err != nil {
		return false, err
	}
	gone := done.Responses[0].GetResponseDeleteRange()
	for _, kv := range gone.GetPrevKvs() {
		e.end(ctx, c, clientv3.LeaseID(kv.GetLease()))
	}
	return gone.GetDeleted() > 0, nil
}

// Increment adds to a number.
func (e *etcdEngine) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	c, err := e.client()
	if err != nil {
		return 0, err
	}
	at := e.bucket(bucket) + key
	for {
		old, err := e.read(ctx, bucket, key)
		if err != nil {
			return 0, err
		}
		text, options := []byte("0"), []clientv3.OpOption(nil)
		if old != nil {
			text = old.Value
			options = append(options, clientv3.WithLease(clientv3.LeaseID(old.Lease)))
		}
		sum, err := decimal.Add(text, by)
		if err != nil {
			return 0, capability.Errorf(capability.InvalidRequest, "%w", err)
		}
		revision := uint64(old.GetModRevision())
		_, err = change(ctx, c, at, &revision, clientv3.OpPut(at, strconv.FormatInt(sum, 10), options...))
		if err == nil {
			return sum, nil
		}
		if status := capability.FromError(err).Status; status != capability.Conflict && !isLeaseGone(err) {
			return 0, err
		}
	}
}

// List returns a page of keys.
func (e *etcdEngine) List(ctx context.Context, bucket, prefix, after string, limit int) ([]string, bool, error) {
	c, err := e.client()
	if err != nil {
		return nil, false, err
	}
	b := e.bucket(bucket)
	got, err := c.Get(ctx, b+from(prefix, after), clientv3.WithRange(clientv3.GetPrefixRangeEnd(b+prefix)),
		clientv3.WithKeysOnly(), clientv3.WithLimit(int64(limit)+1))
	if err != nil {
		return nil, false, err
	}
	keys := make([]string, 0, len(got.Kvs))
	for _, kv := range got.Kvs {
		if len(kv.Key) < len(b) {
			return nil, false, fmt.Errorf("etcd lists a key that was not asked for")
		}
		keys = append(keys, string(kv.Key[len(b):]))
	}
	keys, more := cut(keys, limit)
	return keys, more, nil
}

// isLeaseGone says that a key's lease ended after the key was read, and the key with it.
func isLeaseGone(err error) bool { return errors.Is(err, rpctypes.ErrLeaseNotFound) }
