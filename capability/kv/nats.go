package kv

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

// natsEngine keeps a provider's keys in a JetStream KV bucket of its own, which `nats kv` shows: each key is the last
// message of the subject $KV.wasmatrix_PROVIDER.BUCKET.KEY, and its revision that message's number. Bucket and key
// are in hexadecimal, which leaves the order of their bytes and all beginnings as they are. JetStream lists subjects
// in no order: so a page costs one message without a body for each key of the bucket.
//
// When a key expires is in a header, by the clock of the node that wrote it, which every reader looks at; the
// server removes the message a little later, where it can (2.11 and newer).
//
// NATS takes no message of more than its max_payload, 1 MiB by default and headers included. What of a value does not
// fit is the tail, a message of its own that is stored before and that a header names by its number. A tail whose key was
// replaced is removed by who knows of it; a write that asks for no revision does not, and leaves it: a few hundred
// bytes where max_payload is the default.
type natsEngine struct {
	conn     *nats.Conn
	js       jetstream.JetStream
	bucket   string // JetStream's
	replicas int

	mu     sync.Mutex       // guards what follows
	stream jetstream.Stream // nil until it is known to be there
	ttl    bool             // the server removes what has expired
}

const (
	natsReconnect = 500 * time.Millisecond
	natsDial      = 2 * time.Second
	// What a message may have beside its data: headers and their spelling.
	natsHeaders = 512
	// A marker of a key that was deleted says nothing that a message that is not there would not, and goes soon.
	natsMarkerTTL = time.Minute
	// How many keys of a listing are asked for at once.
	natsBatch = 1000

	headerOperation = "KV-Operation" // as of JetStream's own KV
	headerExpires   = "Wasmatrix-Expires"
	headerTail      = "Wasmatrix-Tail"
	deleted         = "DEL"
)

func openNATS(cfg Config, b backend) (Engine, error) {
	replicas, err := b.replicas()
	if err != nil {
		return nil, err
	}
	o := []nats.Option{
		nats.Name("wasmatrix provider " + cfg.ProviderID), nats.Timeout(natsDial),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(natsReconnect),
		nats.ReconnectBufSize(-1), // what can't be sent now fails now
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			cfg.Log.Debug("nats reports an error", "backend", b.shown(), "err", b.scrub(err.Error()))
		}),
	}
	switch {
	case b.password != "":
		o = append(o, nats.UserInfo(b.user, b.password))
	case b.user != "":
		o = append(o, nats.Token(b.user))
	}
	conn, err := nats.Connect("nats://"+strings.Join(b.hosts, ",nats://"), o...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &natsEngine{conn: conn, js: js, bucket: "wasmatrix_" + escape(cfg.ProviderID, '_', "-"), replicas: replicas}, nil
}

// Close ends the connection.
func (e *natsEngine) Close() error {
	e.conn.Close()
	return nil
}

// open returns the stream, which it makes where there is none.
func (e *natsEngine) open(ctx context.Context) (jetstream.Stream, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stream != nil {
		return e.stream, nil
	}
	if !e.conn.IsConnected() {
		return nil, nats.ErrDisconnected
	}
	name := "KV_" + e.bucket
	s, err := e.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = e.create(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	e.stream, e.ttl = s, s.CachedInfo().Config.AllowMsgTTL
	return s, nil
}

// create makes the stream as JetStream's KV would, but that reads are answered by its leader alone: a replica may not know
// of the newest write.
func (e *natsEngine) create(ctx context.Context, name string) (jetstream.Stream, error) {
	c := jetstream.StreamConfig{
		Name: name, Description: "keys of a wasmatrix provider", Subjects: []string{"$KV." + e.bucket + ".>"},
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowRollup: true, Storage: jetstream.FileStorage,
		Replicas: e.replicas, AllowMsgTTL: true,
	}
	s, err := e.js.CreateStream(ctx, c)
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); ok && apiErr.ErrorCode != jetstream.JSErrCodeStreamNameInUse {
		c.AllowMsgTTL = false // a server before 2.11
		s, err = e.js.CreateStream(ctx, c)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was quicker
		return e.js.Stream(ctx, name)
	}
	return s, err
}

// forget has the stream looked for again, if an error says that it is not there any more.
func (e *natsEngine) forget(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stream = nil
	}
	return err
}

// Check asks whether the stream is there.
func (e *natsEngine) Check(ctx context.Context) error {
	s, err := e.open(ctx)
	if err != nil {
		return err
	}
	_, err = s.Info(ctx)
	return e.forget(err)
}

func (e *natsEngine) subject(bucket, key string) string {
	return "$KV." + e.bucket + "." + hex.EncodeToString([]byte(bucket)) + "." + hex.EncodeToString([]byte(key))
}

// message is the last one of a key's subject.
type message struct {
	seq     uint64 // 0 where there is none
	live    bool   // it is a value, which has not expired
	value   []byte // without its tail
	expires time.Time
	tail    uint64 // 0 for none
}

func expired(expires time.Time) bool { return !expires.IsZero() && !time.Now().Before(expires) }

func expiresOf(h nats.Header) time.Time {
	text := h.Get(headerExpires)
	if text == "" {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{} // not ours
	}
	return time.UnixMilli(ms)
}

func (e *natsEngine) last(ctx context.Context, s jetstream.Stream, subject string) (m message, err error) {
	raw, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return m, nil
	}
	if err != nil {
		return m, e.forget(err)
	}
	m = message{seq: raw.Sequence, value: raw.Data, expires: expiresOf(raw.Header)}
	if text := raw.Header.Get(headerTail); text != "" {
		if m.tail, err = strconv.ParseUint(text, 10, 64); err != nil {
			return m, fmt.Errorf("a message's tail is %q: %w", text, err)
		}
	}
	op := raw.Header.Get(headerOperation)
	m.live = op == "" && raw.Header.Get(jetstream.MarkerReasonHeader) == "" && !expired(m.expires)
	return m, nil
}

// tailTries is how often a key may be replaced between the reading of its message and of its tail.
const tailTries = 10

// Get reads a key.
func (e *natsEngine) Get(ctx context.Context, bucket, key string) (entry capability.Entry, err error) {
	s, err := e.open(ctx)
	if err != nil {
		return entry, err
	}
	for range tailTries {
		m, err := e.last(ctx, s, e.subject(bucket, key))
		switch {
		case err != nil:
			return entry, err
		case !m.live:
			return entry, notFound(bucket, key)
		case m.tail == 0:
			return capability.Entry{Value: m.value, Revision: m.seq}, nil
		}
		tail, err := s.GetMsg(ctx, m.tail)
		if err == nil {
			return capability.Entry{Value: append(m.value, tail.Data...), Revision: m.seq}, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return entry, e.forget(err)
		}
	}
	return entry, capability.Errorf(capability.Internal, "a part of key %q in bucket %q is not there", key, bucket)
}

// Exists says whether there is a key.
func (e *natsEngine) Exists(ctx context.Context, bucket, key string) (uint64, bool, error) {
	s, err := e.open(ctx)
	if err != nil {
		return 0, false, err
	}
	m, err := e.last(ctx, s, e.subject(bucket, key))
	if err != nil || !m.live {
		return 0, false, err
	}
	return m.seq, true, nil
}

// errMoved says that a subject has had another message since it was looked at.
var errMoved = errors.New("the key was written by somebody else")

// publish stores a message, on top of the one with a certain number or with nil of any.
func (e *natsEngine) publish(ctx context.Context, m *nats.Msg, on *uint64, ttl time.Duration) (uint64, error) {
	var o []jetstream.PublishOpt
	if on != nil {
		o = append(o, jetstream.WithExpectLastSequencePerSubject(*on))
	}
	e.mu.Lock()
	removes := e.ttl
	e.mu.Unlock()
	if removes && ttl > 0 {
		o = append(o, jetstream.WithMsgTTL(ttl))
	}
	ack, err := e.js.PublishMsg(ctx, m, o...)
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); ok &&
		(apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return 0, errMoved
	}
	if err != nil {
		return 0, e.forget(err)
	}
	return ack.Sequence, nil
}

// put writes a key on top of a message, or with nil of any, and removes the tail of the one before.
func (e *natsEngine) put(ctx context.Context, s jetstream.Stream, bucket, key string, value []byte, expires time.Time, on *message) (uint64, error) {
	m := nats.NewMsg(e.subject(bucket, key))
	var ttl time.Duration
	if !expires.IsZero() {
		m.Header.Set(headerExpires, strconv.FormatInt(expires.UnixMilli(), 10))
		ttl = serverTTL(expires)
	}
	m.Data = value
	var tail uint64
	if most := int(e.conn.MaxPayload()) - natsHeaders; len(value) > most && most > 0 {
		if len(value) > 2*most {
			return 0, capability.Errorf(capability.Exhausted, "a value of %d bytes: this server takes messages of %d (its max_payload)", len(value), e.conn.MaxPayload())
		}
		m.Data = value[:most]
		rest := nats.NewMsg("$KV." + e.bucket + ".tail." + nats.NewInbox()[len(nats.InboxPrefix):])
		rest.Data = value[most:]
		var err error
		if tail, err = e.publish(ctx, rest, nil, ttl); err != nil {
			return 0, err
		}
		m.Header.Set(headerTail, strconv.FormatUint(tail, 10))
	}
	var seq *uint64
	if on != nil {
		seq = &on.seq
	}
	revision, err := e.publish(ctx, m, seq, ttl)
	switch {
	case errors.Is(err, errMoved):
		e.dropTail(ctx, s, tail)
	case err == nil && on != nil:
		e.dropTail(ctx, s, on.tail)
	}
	return revision, err
}

// dropTail removes a tail that nobody names any more. If it can't be, it stays and harms nobody.
func (e *natsEngine) dropTail(ctx context.Context, s jetstream.Stream, tail uint64) {
	if tail != 0 {
		_ = s.DeleteMsg(ctx, tail)
	}
}

// serverTTL is after which time a server may remove what expires, in whole seconds and not too early.
func serverTTL(expires time.Time) time.Duration {
	return max(time.Until(expires), 0).Truncate(time.Second) + 2*time.Second
}

// longest keeps times to live in what JetStream's own arithmetic can bear: a century.
const longest = 100 * 365 * 24 * time.Hour

// Set writes a key.
func (e *natsEngine) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	s, err := e.open(ctx)
	if err != nil {
		return 0, err
	}
	var expires time.Time
	if o.TTL > 0 {
		expires = time.Now().Add(min(o.TTL, longest))
	}
	if o.IfRevision == nil {
		return e.put(ctx, s, bucket, key, value, expires, nil)
	}
	for {
		m, err := e.last(ctx, s, e.subject(bucket, key))
		if err != nil {
			return 0, err
		}
		if at := m.revision(); at != *o.IfRevision {
			return 0, conflict(at)
		}
		revision, err := e.put(ctx, s, bucket, key, value, expires, &m)
		if !errors.Is(err, errMoved) {
			return revision, err
		}
	}
}

// revision is the one that a caller knows.
func (m message) revision() uint64 {
	if !m.live {
		return 0
	}
	return m.seq
}

// Delete removes a key.
func (e *natsEngine) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	s, err := e.open(ctx)
	if err != nil {
		return false, err
	}
	for {
		m, err := e.last(ctx, s, e.subject(bucket, key))
		if err != nil {
			return false, err
		}
		if at := m.revision(); ifRevision != nil && *ifRevision != at {
			return false, conflict(at)
		}
		if !m.live {
			return false, nil
		}
		marker := nats.NewMsg(e.subject(bucket, key))
		marker.Header.Set(headerOperation, deleted)
		_, err = e.publish(ctx, marker, &m.seq, natsMarkerTTL)
		if errors.Is(err, errMoved) {
			continue
		}
		if err == nil {
			e.dropTail(ctx, s, m.tail)
		}
		return err == nil, err
	}
}

// Increment adds to a number.
func (e *natsEngine) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	s, err := e.open(ctx)
	if err != nil {
		return 0, err
	}
	for {
		m, err := e.last(ctx, s, e.subject(bucket, key))
		if err != nil {
			return 0, err
		}
		text, expires := m.value, m.expires
		switch {
		case !m.live:
			text, expires = []byte("0"), time.Time{}
		case m.tail != 0:
			text = nil // far too long for a number
		}
		sum, err := decimal.Add(text, by)
		if err != nil {
			return 0, capability.Errorf(capability.InvalidRequest, "%w", err)
		}
		_, err = e.put(ctx, s, bucket, key, strconv.AppendInt(nil, sum, 10), expires, &m)
		if !errors.Is(err, errMoved) {
			return sum, err
		}
	}
}

// List returns a page of keys.
func (e *natsEngine) List(ctx context.Context, bucket, prefix, after string, limit int) ([]string, bool, error) {
	s, err := e.open(ctx)
	if err != nil {
		return nil, false, err
	}
	within := "$KV." + e.bucket + "." + hex.EncodeToString([]byte(bucket)) + "."
	consumer, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: within + "*", DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy,
		HeadersOnly: true, MemoryStorage: true, Replicas: 1, InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return nil, false, e.forget(err)
	}
	defer func() { _ = s.DeleteConsumer(context.WithoutCancel(ctx), consumer.CachedInfo().Name) }() // else it goes by itself
	start := from(prefix, after)
	found := map[string]bool{}
	for pending := consumer.CachedInfo().NumPending; pending > 0; {
		batch, err := consumer.FetchNoWait(natsBatch)
		if err != nil {
			return nil, false, err
		}
		got := 0
		for m := range batch.Messages() {
			got++
			meta, err := m.Metadata()
			if err != nil {
				return nil, false, err
			}
			pending = meta.NumPending
			raw, err := hex.DecodeString(strings.TrimPrefix(m.Subject(), within))
			if err != nil {
				continue // not ours
			}
			key, h := string(raw), m.Headers()
			if key >= start && strings.HasPrefix(key, prefix) {
				// A key that was written meanwhile comes twice, and the later message counts.
				found[key] = h.Get(headerOperation) == "" && h.Get(jetstream.MarkerReasonHeader) == "" && !expired(expiresOf(h))
			}
		}
		if err := batch.Error(); err != nil {
			return nil, false, err
		}
		if got == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
	var keys []string
	for key, live := range found {
		if live {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	keys, more := cut(keys, limit)
	return keys, more, nil
}
