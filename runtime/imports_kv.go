package runtime

import (
	"bytes"
	"context"

	"github.com/wasmatrix/wasmatrix/capability"
)

// where are the arguments that each kv call begins with.
func (h *host) where() (capabilityID, bucket, key string) {
	return h.takeCapability(), h.takeBucket(), h.text("the key")
}

func kvGet(ctx context.Context, h *host) (int64, error) {
	id, bucket, key := h.where()
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	e, err := s.Get(ctx, id, bucket, key)
	if err != nil {
		return 0, err
	}
	h.result, h.number = e.Value, int64(e.Revision)
	return int64(len(e.Value)), nil
}

func kvExists(ctx context.Context, h *host) (int64, error) {
	id, bucket, key := h.where()
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	revision, ok, err := s.Exists(ctx, id, bucket, key)
	h.number = int64(revision)
	return truth(ok), err
}

func kvSet(ctx context.Context, h *host) (int64, error) {
	id, bucket, key := h.where()
	value := h.bytes("the value", capability.MaxValue)
	o := capability.SetOptions{TTL: h.takeTime(), IfRevision: h.takeRevision()}
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	revision, err := s.Set(ctx, id, bucket, key, bytes.Clone(value), o)
	h.number = int64(revision)
	return 0, err
}

func kvDelete(ctx context.Context, h *host) (int64, error) {
	id, bucket, key := h.where()
	revision := h.takeRevision()
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	existed, err := s.Delete(ctx, id, bucket, key, revision)
	return truth(existed), err
}

func kvIncrement(ctx context.Context, h *host) (int64, error) {
	id, bucket, key := h.where()
	by := h.takeLong()
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	sum, err := s.Increment(ctx, id, bucket, key, by)
	h.number = sum
	return 0, err
}

func kvList(ctx context.Context, h *host) (int64, error) {
	id, bucket := h.takeCapability(), h.takeBucket()
	prefix, after := h.text("the prefix"), h.text("the key to begin after")
	limit := int32(h.take())
	if limit < 0 {
		h.refuse(invalidArgument("a limit of %d keys: want from 1 to %d, or 0 for that", limit, capability.MaxList))
	}
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	keys, more, err := s.List(ctx, id, bucket, prefix, after, int(limit))
	if err != nil {
		return 0, err
	}
	h.result, h.number = list(keys...), truth(more)
	return int64(len(keys)), nil
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
