package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/wasmatrix/wasmatrix/capability"
)

// Config says which keys to open.
type Config struct {
	// The backend: memory:, redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// for the same with TLS,
	// nats://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][?replicas=N], or etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...].
	URL string
	// Whose keys they are; providers of other ids see nothing of them.
	ProviderID string
	// How many bytes of keys and values a memory engine takes before it refuses more. Default 256 MiB.
	MaxMemory int64

	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxMemory == 0 {
		c.MaxMemory = 256 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate says what is wrong with a configuration, without asking any server.
func (c Config) Validate() error {
	if c.ProviderID == "" || len(c.ProviderID) > maxName {
		return fmt.Errorf("the id of a provider has %d bytes: want 1 to %d", len(c.ProviderID), maxName)
	}
	_, err := parseBackend(c.URL)
	return err
}

// Engine is keys and values, and what they are kept in.
type Engine interface {
	capability.KV
	// Check asks the backend whether it is there. It is cheap enough to be asked every few seconds.
	Check(ctx context.Context) error
	Close() error
}

// Open returns the engine of a backend. That the backend can't be reached is no error here, but one of each call.
func Open(ctx context.Context, cfg Config) (Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b, err := parseBackend(cfg.URL)
	if err != nil {
		return nil, err
	}
	var e Engine
	switch b.scheme {
	case "memory":
		e = newMemory(cfg.MaxMemory)
	case "redis", "rediss":
		e, err = openRedis(cfg, b)
	case "nats":
		e, err = openNATS(cfg, b)
	case "etcd":
		e = openEtcd(cfg, b)
	}
	if err != nil {
		return nil, b.wrap(ctx, err)
	}
	return &checked{Engine: e, backend: b}, nil
}

const maxName = 255 // bytes of a provider's id or a bucket's name

// checked is an engine behind what all engines have in common: arguments are looked at, and errors have one form.
type checked struct {
	Engine

	backend backend
}

func validate(ctx context.Context, bucket, key string) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case bucket == "" || len(bucket) > maxName || !utf8.ValidString(bucket):
		return capability.Errorf(capability.InvalidRequest, "the name of a bucket: want 1 to %d bytes of UTF-8", maxName)
	}
	return capability.ValidateKey(key)
}

// again calls once more what only reads and could not reach the backend: a connection may have been closed while nobody
// used it.
func (c *checked) again(ctx context.Context, call func() error) error {
	err := c.backend.wrap(ctx, call())
	if e := capability.FromError(err); e != nil && e.Status == capability.Unavailable && ctx.Err() == nil {
		err = c.backend.wrap(ctx, call())
	}
	return err
}

// Check asks the backend whether it is there.
func (c *checked) Check(ctx context.Context) error {
	return c.again(ctx, func() error { return c.Engine.Check(ctx) })
}

// Get reads a key.
func (c *checked) Get(ctx context.Context, bucket, key string) (e capability.Entry, err error) {
	if err := validate(ctx, bucket, key); err != nil {
		return e, c.backend.wrap(ctx, err)
	}
	err = c.again(ctx, func() (err error) {
		e, err = c.Engine.Get(ctx, bucket, key)
		return err
	})
	return e, err
}

// Exists says whether there is a key.
func (c *checked) Exists(ctx context.Context, bucket, key string) (revision uint64, ok bool, err error) {
	if err := validate(ctx, bucket, key); err != nil {
		return 0, false, c.backend.wrap(ctx, err)
	}
	err = c.again(ctx, func() (err error) {
		revision, ok, err = c.Engine.Exists(ctx, bucket, key)
		return err
	})
	return revision, ok, err
}

// Set writes a key.
func (c *checked) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	err := validate(ctx, bucket, key)
	switch {
	case err != nil:
	case len(value) > capability.MaxValue:
		err = capability.Errorf(capability.Exhausted, "a value of %d bytes: at most %d", len(value), capability.MaxValue)
	case o.TTL < 0:
		err = capability.Errorf(capability.InvalidRequest, "a time to live of %s", o.TTL)
	}
	if err != nil {
		return 0, c.backend.wrap(ctx, err)
	}
	revision, err := c.Engine.Set(ctx, bucket, key, value, o)
	return revision, c.backend.wrap(ctx, err)
}

// Delete removes a key.
func (c *checked) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	if err := validate(ctx, bucket, key); err != nil {
		return false, c.backend.wrap(ctx, err)
	}
	existed, err := c.Engine.Delete(ctx, bucket, key, ifRevision)
	return existed, c.backend.wrap(ctx, err)
}

// Increment adds to a number.
func (c *checked) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	if err := validate(ctx, bucket, key); err != nil {
		return 0, c.backend.wrap(ctx, err)
	}
	sum, err := c.Engine.Increment(ctx, bucket, key, by)
	return sum, c.backend.wrap(ctx, err)
}

// List returns a page of keys.
func (c *checked) List(ctx context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	if err := validate(ctx, bucket, "k"); err != nil {
		return nil, false, c.backend.wrap(ctx, err)
	}
	if limit <= 0 || limit > capability.MaxList {
		limit = capability.MaxList
	}
	err = c.again(ctx, func() (err error) {
		keys, more, err = c.Engine.List(ctx, bucket, prefix, after, limit)
		return err
	})
	return keys, more, err
}

func notFound(bucket, key string) error {
	return capability.Errorf(capability.NotFound, "there is no key %q in bucket %q", key, bucket)
}

func conflict(revision uint64) error {
	if revision == 0 {
		return capability.Errorf(capability.Conflict, "there is no such key")
	}
	return capability.Errorf(capability.Conflict, "the key is at revision %d", revision)
}

// wrap gives an error its form. What the backend or its library says is Unavailable, but for an end of the context.
func (b backend) wrap(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*capability.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || ctx.Err() != nil {
		cause := ctx.Err()
		if cause == nil {
			cause = context.DeadlineExceeded // a library's own limit
		}
		return capability.FromError(fmt.Errorf("%s: %w", b.shown(), cause))
	}
	text := err.Error()
	if clean := b.scrub(text); clean != text { // then nobody is to look behind the message either
		return capability.Errorf(capability.Unavailable, "%s: %s", b.shown(), clean)
	}
	return capability.Errorf(capability.Unavailable, "%s: %w", b.shown(), err)
}

// from returns where a page begins: the least key with the prefix that comes after another one.
func from(prefix, after string) string {
	if after != "" && after >= prefix {
		return after + "\x00"
	}
	return prefix
}

// cut makes a page of keys that may be one too many.
func cut(keys []string, limit int) (page []string, more bool) {
	if len(keys) > limit {
		return keys[:limit], true
	}
	return keys, false
}

// escape spells a name with letters, digits, dashes and dots alone, differently for each; mark stands before what is spelled.
func escape(name string, mark byte, plain string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%c%02x", mark, c)
		}
	}
	return b.String()
}
