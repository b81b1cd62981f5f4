package provider

import (
	"context"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

var _ capability.Directory = (*Host)(nil)

// KV implements [capability.Directory].
func (h *Host) KV(c capability.Call) (capability.KV, error) {
	e, err := h.find(c, capability.TypeKV)
	if err != nil {
		return nil, err
	}
	if e.keys {
		return &replicated{remote{host: h, entry: e, call: c}}, nil
	}
	if kv, err := h.localKV(e); kv != nil || err != nil {
		return kv, err
	}
	return h.remote(e, c), nil
}

// HTTP implements [capability.Directory].
func (h *Host) HTTP(c capability.Call) (capability.HTTP, error) {
	e, err := h.find(c, capability.TypeHTTP)
	if err != nil {
		return nil, err
	}
	if e.here != nil {
		engine, err := e.serving()
		return engine.HTTP, err
	}
	return h.remote(e, c), nil
}

// Messaging implements [capability.Directory].
func (h *Host) Messaging(c capability.Call) (capability.Messaging, error) {
	e, err := h.find(c, capability.TypeMessaging)
	if err != nil {
		return nil, err
	}
	if e.here != nil {
		engine, err := e.serving()
		if err != nil {
			return nil, err
		}
		return timedMessaging{engine.Messaging, e.def.Settings.Timeout}, nil
	}
	return h.remote(e, c), nil
}

// find returns the provider that a call goes to, if it is there and of that type.
func (h *Host) find(c capability.Call, providerType string) (*entry, error) {
	id := c.Grant.GetCapabilityId()
	h.mu.RLock()
	e := h.entries[id]
	h.mu.RUnlock()
	switch {
	case e == nil:
		return nil, capability.Errorf(capability.UnknownGrant, "there is no provider %q (any more)", id)
	case e.def.Type != providerType:
		return nil, capability.Errorf(capability.InvalidRequest, "provider %q is of type %s, and this is a call of type %s", id, e.def.Type, providerType)
	case e.bad != nil:
		return nil, capability.Errorf(capability.Unavailable, "provider %q: %w", id, e.bad)
	case e.told.GetState() == pb.ProviderState_PROVIDER_STATE_STOPPED:
		return nil, capability.Errorf(capability.Unavailable, "provider %q is stopped", id)
	}
	return e, nil
}

// localKV returns a store that is called on this node; nil where it is on another.
func (h *Host) localKV(e *entry) (capability.KV, error) {
	if e.keys {
		if h.cfg.Keys == nil {
			return nil, nil
		}
		if _, self := h.cfg.Keys.Leader(); self {
			return timedKV{h.cfg.Keys.Store(e.def.ID), e.def.Settings.Timeout}, nil
		}
		return nil, nil
	}
	if e.here == nil {
		return nil, nil
	}
	engine, err := e.serving()
	if err != nil {
		return nil, err
	}
	if engine.Prompt {
		return engine.KV, nil
	}
	return timedKV{engine.KV, e.def.Settings.Timeout}, nil
}

// serving returns the engine of a provider of this node, also one that was not well when it was asked last: a call finds out
// sooner than the next look.
func (e *entry) serving() (Engine, error) {
	engine, err := e.here.engine()
	if engine.KV == nil && engine.HTTP == nil && engine.Messaging == nil {
		return engine, capability.Errorf(capability.Unavailable, "provider %q does not serve: %w", e.def.ID, err)
	}
	return engine, nil
}

// timedKV bounds each call.
type timedKV struct {
	kv      capability.KV
	timeout time.Duration
}

func (t timedKV) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, t.timeout)
}

func (t timedKV) Get(ctx context.Context, bucket, key string) (capability.Entry, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	return t.kv.Get(ctx, bucket, key)
}

func (t timedKV) Exists(ctx context.Context, bucket, key string) (uint64, bool, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	return t.kv.Exists(ctx, bucket, key)
}

func (t timedKV) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	return t.kv.Set(ctx, bucket, key, value, o)
}

func (t timedKV) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	return t.kv.Delete(ctx, bucket, key, ifRevision)
}

func (t timedKV) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	return t.kv.Increment(ctx, bucket, key, by)
}

func (t timedKV) List(ctx context.Context, bucket, prefix, after string, limit int) ([]string, bool, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	return t.kv.List(ctx, bucket, prefix, after, limit)
}

// timedMessaging bounds each call but a request, which brings its own time.
type timedMessaging struct {
	capability.Messaging

	timeout time.Duration
}

func (t timedMessaging) Publish(ctx context.Context, subject string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	return t.Messaging.Publish(ctx, subject, data)
}

func (t timedMessaging) Reply(ctx context.Context, to string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	return t.Messaging.Reply(ctx, to, data)
}

func (t timedMessaging) Subscribe(ctx context.Context, subject, queue string, deliver func(capability.Message)) (capability.Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	return t.Messaging.Subscribe(ctx, subject, queue, deliver)
}
