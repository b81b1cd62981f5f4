package provider

import (
	"context"
	"crypto/rand"

	"github.com/wasmatrix/wasmatrix/capability"
)

// replicated is the replicated keys of one provider, as one instance calls them: on this node while it leads their group, else on
// the one that does. A call that this node could not finish, as it led no more, is made again there; a write has the same number
// then, and is done once.
type replicated struct {
	remote
}

var _ capability.KV = (*replicated)(nil)

// begin gives a call its number and its time.
func (r *replicated) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	r.callID = make([]byte, callIDBytes)
	rand.Read(r.callID)
	ctx, cancel := context.WithTimeout(ctx, r.def.Settings.Timeout)
	if keys := r.host.cfg.Keys; keys != nil {
		ctx = keys.WithCallID(ctx, r.callID)
	}
	return ctx, cancel
}

// here makes a call on this node, if it leads; false where it is to be made elsewhere.
func (r *replicated) here(call func(kv capability.KV) error) (done bool, err error) {
	keys := r.host.cfg.Keys
	if keys == nil {
		return false, nil
	}
	if _, self := keys.Leader(); !self {
		return false, nil
	}
	err = call(keys.Store(r.def.ID))
	e := capability.FromError(err)
	return e == nil || e.Status != capability.Unavailable, err
}

// Get implements [capability.KV].
func (r *replicated) Get(ctx context.Context, bucket, key string) (e capability.Entry, err error) {
	ctx, cancel := r.begin(ctx)
	defer cancel()
	done, err := r.here(func(kv capability.KV) (err error) { e, err = kv.Get(ctx, bucket, key); return err })
	if done {
		return e, err
	}
	return r.remote.Get(ctx, bucket, key)
}

// Exists implements [capability.KV].
func (r *replicated) Exists(ctx context.Context, bucket, key string) (revision uint64, ok bool, err error) {
	ctx, cancel := r.begin(ctx)
	defer cancel()
	done, err := r.here(func(kv capability.KV) (err error) { revision, ok, err = kv.Exists(ctx, bucket, key); return err })
	if done {
		return revision, ok, err
	}
	return r.remote.Exists(ctx, bucket, key)
}

// Set implements [capability.KV].
func (r *replicated) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (revision uint64, err error) {
	ctx, cancel := r.begin(ctx)
	defer cancel()
	done, err := r.here(func(kv capability.KV) (err error) { revision, err = kv.Set(ctx, bucket, key, value, o); return err })
	if done {
		return revision, err
	}
	return r.remote.Set(ctx, bucket, key, value, o)
}

// Delete implements [capability.KV].
func (r *replicated) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (existed bool, err error) {
	ctx, cancel := r.begin(ctx)
	defer cancel()
	done, err := r.here(func(kv capability.KV) (err error) { existed, err = kv.Delete(ctx, bucket, key, ifRevision); return err })
	if done {
		return existed, err
	}
	return r.remote.Delete(ctx, bucket, key, ifRevision)
}

// Increment implements [capability.KV].
func (r *replicated) Increment(ctx context.Context, bucket, key string, by int64) (sum int64, err error) {
	ctx, cancel := r.begin(ctx)
	defer cancel()
	done, err := r.here(func(kv capability.KV) (err error) { sum, err = kv.Increment(ctx, bucket, key, by); return err })
	if done {
		return sum, err
	}
	return r.remote.Increment(ctx, bucket, key, by)
}

// List implements [capability.KV].
func (r *replicated) List(ctx context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	ctx, cancel := r.begin(ctx)
	defer cancel()
	done, err := r.here(func(kv capability.KV) (err error) {
		keys, more, err = kv.List(ctx, bucket, prefix, after, limit)
		return err
	})
	if done {
		return keys, more, err
	}
	return r.remote.List(ctx, bucket, prefix, after, limit)
}
