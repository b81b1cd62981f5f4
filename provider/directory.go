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
		return localMessaging{boundedMessaging{engine.Messaging, bounded{e.def.Settings.Timeout, e.here.ctx}}, h, e, c}, nil
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
			return boundedKV{bounded{e.def.Settings.Timeout, h.life}, h.cfg.Keys.Store(e.def.ID)}, nil
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
	return boundedKV{bounded{e.def.Settings.Timeout, e.here.ctx}, engine.KV}, nil
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

// bounded is what ends a call to a provider of this node: its time, and the end of the provider.
type bounded struct {
	timeout time.Duration
	life    context.Context // the provider's
}

// begin returns the context of a call, and what makes the call's error the one that the guest is to see.
func (b bounded) begin(ctx context.Context) (context.Context, func(*error)) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	stop := context.AfterFunc(b.life, cancel)
	return ctx, func(err *error) {
		stop()
		cancel()
		if *err != nil && b.life.Err() != nil {
			*err = capability.Errorf(capability.Unavailable, "the provider was stopped in mid-call; a write may have been done: %w", *err)
		}
	}
}

// boundedKV bounds each call.
type boundedKV struct {
	bounded

	kv capability.KV
}

func (b boundedKV) Get(ctx context.Context, bucket, key string) (_ capability.Entry, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.kv.Get(ctx, bucket, key)
}

func (b boundedKV) Exists(ctx context.Context, bucket, key string) (_ uint64, _ bool, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.kv.Exists(ctx, bucket, key)
}

func (b boundedKV) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (_ uint64, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.kv.Set(ctx, bucket, key, value, o)
}

func (b boundedKV) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (_ bool, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.kv.Delete(ctx, bucket, key, ifRevision)
}

func (b boundedKV) Increment(ctx context.Context, bucket, key string, by int64) (_ int64, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.kv.Increment(ctx, bucket, key, by)
}

func (b boundedKV) List(ctx context.Context, bucket, prefix, after string, limit int) (_ []string, _ bool, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.kv.List(ctx, bucket, prefix, after, limit)
}

// boundedMessaging bounds each call but a request, which brings its own time.
type boundedMessaging struct {
	capability.Messaging
	bounded
}

func (b boundedMessaging) Publish(ctx context.Context, subject string, data []byte) (err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.Messaging.Publish(ctx, subject, data)
}

func (b boundedMessaging) Reply(ctx context.Context, to string, data []byte) (err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.Messaging.Reply(ctx, to, data)
}

func (b boundedMessaging) Subscribe(ctx context.Context, subject, queue string, deliver func(capability.Message)) (_ capability.Subscription, err error) {
	ctx, end := b.begin(ctx)
	defer end(&err)
	return b.Messaging.Subscribe(ctx, subject, queue, deliver)
}
