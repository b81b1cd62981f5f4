package capability

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Observer hears of calls. Its methods must not block.
type Observer interface {
	// Calling tells that a call begins, and returns the context to make it with.
	Calling(ctx context.Context, providerType, operation string) context.Context
	// Called tells how a call ended that was made with that context, and how long it took. The capability's id is a guest's word,
	// which may be of no provider.
	Called(ctx context.Context, providerType, capabilityID, operation string, status Status, took time.Duration)
	// Denied tells that a call was refused for want of a permission.
	Denied(c Caller, capabilityID, operation string, err *Error)
	// Dropped tells that a message was dropped, since the instance did not receive the ones before.
	Dropped(c Caller)
}

// Operations lists what an [Observer] hears of, by the type of provider.
func Operations() map[string][]string {
	return map[string][]string{
		TypeKV:        {"get", "exists", "set", "delete", "increment", "list"},
		TypeHTTP:      {"request"},
		TypeMessaging: {"publish", "request", "answer", "subscribe", "unsubscribe", "receive"},
	}
}

// Session is what one instance may do and has open. Its guest calls it, one call at a time; grants may change
// at any moment from elsewhere.
type Session struct {
	caller    Caller
	directory Directory
	observer  Observer
	rights    atomic.Pointer[Rights]
	inbox     inbox

	mu     sync.Mutex // guards grants; held while they change, so that rights and inbox follow in order
	grants []*Grant
}

// NewSession returns the session of an instance that has these grants.
func NewSession(caller Caller, grants []*Grant, d Directory, o Observer) *Session {
	s := &Session{caller: caller, directory: d, observer: o, grants: grants}
	s.rights.Store(Compile(grants))
	return s
}

// SetGrants replaces what the instance may do. When it returns, the next call is judged by it, and
// subscriptions that are no longer allowed have ended.
func (s *Session) SetGrants(grants []*Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = grants
	rights := Compile(grants)
	s.rights.Store(rights)
	s.inbox.cut(func(sub *subscription) error { return s.mayHear(rights, sub.capabilityID, sub.subject) })
}

// Close ends all that the instance has open. The session is not used after it.
func (s *Session) Close() { s.inbox.close() }

// begin tells the observer of a call that begins.
func (s *Session) begin(ctx context.Context, providerType, operation string) (context.Context, time.Time) {
	return s.observer.Calling(ctx, providerType, operation), time.Now()
}

// observed tells the observer of a call that has ended, and gives its error one form.
func (s *Session) observed(ctx context.Context, providerType, operation, capabilityID string, began time.Time, err error) error {
	e := FromError(err)
	status := OK
	if e != nil {
		status = e.Status
	}
	s.observer.Called(ctx, providerType, capabilityID, operation, status, time.Since(began))
	if status == PermissionDenied || status == UnknownGrant {
		s.observer.Denied(s.caller, capabilityID, operation, e)
	}
	if e == nil { // not a nil *Error in an error
		return nil
	}
	return e
}

// keys returns the store that a call on a bucket goes to, if it is allowed. An empty bucket is the instance's own.
func (s *Session) keys(capabilityID string, does Key, bucket *string) (KV, error) {
	right, err := s.rights.Load().Of(capabilityID, TypeKV)
	if err != nil {
		return nil, err
	}
	if *bucket == "" {
		*bucket = s.caller.Name
	} else if err := ValidateBucket(*bucket); err != nil {
		return nil, err
	}
	if err := right.Bucket(does, s.caller.Name, *bucket); err != nil {
		return nil, err
	}
	return s.directory.KV(Call{Caller: &s.caller, Grant: right.Grant})
}

// Get reads a key. An empty bucket is the instance's own, which it shares with its replicas; so everywhere below.
func (s *Session) Get(ctx context.Context, capabilityID, bucket, key string) (e Entry, err error) {
	ctx, began := s.begin(ctx, TypeKV, "get")
	kv, err := s.keys(capabilityID, ReadKey, &bucket)
	if err == nil {
		err = ValidateKey(key)
	}
	if err == nil {
		e, err = kv.Get(ctx, bucket, key)
	}
	return e, s.observed(ctx, TypeKV, "get", capabilityID, began, err)
}

// Exists says whether there is such a key, and at which revision.
func (s *Session) Exists(ctx context.Context, capabilityID, bucket, key string) (revision uint64, ok bool, err error) {
	ctx, began := s.begin(ctx, TypeKV, "exists")
	kv, err := s.keys(capabilityID, ReadKey, &bucket)
	if err == nil {
		err = ValidateKey(key)
	}
	if err == nil {
		revision, ok, err = kv.Exists(ctx, bucket, key)
	}
	return revision, ok, s.observed(ctx, TypeKV, "exists", capabilityID, began, err)
}

// Set writes a key.
func (s *Session) Set(ctx context.Context, capabilityID, bucket, key string, value []byte, o SetOptions) (revision uint64, err error) {
	ctx, began := s.begin(ctx, TypeKV, "set")
	kv, err := s.keys(capabilityID, WriteKey, &bucket)
	switch {
	case err != nil:
	case len(value) > MaxValue:
		err = Errorf(Exhausted, "a value of %d bytes: at most %d", len(value), MaxValue)
	case o.TTL < 0:
		err = Errorf(InvalidRequest, "a time to live of %s", o.TTL)
	default:
		if err = ValidateKey(key); err == nil {
			revision, err = kv.Set(ctx, bucket, key, value, o)
		}
	}
	return revision, s.observed(ctx, TypeKV, "set", capabilityID, began, err)
}

// Delete removes a key.
func (s *Session) Delete(ctx context.Context, capabilityID, bucket, key string, ifRevision *uint64) (existed bool, err error) {
	ctx, began := s.begin(ctx, TypeKV, "delete")
	kv, err := s.keys(capabilityID, DeleteKey, &bucket)
	if err == nil {
		err = ValidateKey(key)
	}
	if err == nil {
		existed, err = kv.Delete(ctx, bucket, key, ifRevision)
	}
	return existed, s.observed(ctx, TypeKV, "delete", capabilityID, began, err)
}

// Increment adds to a number. It writes, and tells what was there: so it needs both permissions.
func (s *Session) Increment(ctx context.Context, capabilityID, bucket, key string, by int64) (sum int64, err error) {
	ctx, began := s.begin(ctx, TypeKV, "increment")
	kv, err := s.keys(capabilityID, ReadKey|WriteKey, &bucket)
	if err == nil {
		err = ValidateKey(key)
	}
	if err == nil {
		sum, err = kv.Increment(ctx, bucket, key, by)
	}
	return sum, s.observed(ctx, TypeKV, "increment", capabilityID, began, err)
}

// List returns a page of keys. A limit of 0, or one that is too high, is the highest.
func (s *Session) List(ctx context.Context, capabilityID, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	ctx, began := s.begin(ctx, TypeKV, "list")
	kv, err := s.keys(capabilityID, ReadKey, &bucket)
	switch {
	case err != nil:
	case len(prefix) > MaxKey || len(after) > MaxKey:
		err = Errorf(InvalidRequest, "a prefix of %d bytes and a key of %d to begin after: at most %d each", len(prefix), len(after), MaxKey)
	default:
		if limit <= 0 || limit > MaxList {
			limit = MaxList
		}
		keys, more, err = kv.List(ctx, bucket, prefix, after, limit)
	}
	return keys, more, s.observed(ctx, TypeKV, "list", capabilityID, began, err)
}

// Request makes an HTTP request. What the grant allows is asked again at each redirect, as it is then. The response's
// body is to be closed.
func (s *Session) Request(ctx context.Context, capabilityID string, r *HTTPRequest) (resp *HTTPResponse, err error) {
	ctx, began := s.begin(ctx, TypeHTTP, "request")
	right, err := s.rights.Load().Of(capabilityID, TypeHTTP)
	if err == nil && !right.ask {
		err = right.lacks(HTTPAsk)
	}
	var h HTTP
	if err == nil {
		h, err = s.directory.HTTP(Call{Caller: &s.caller, Grant: right.Grant})
	}
	if err == nil {
		r.Allow = func(host, port string) (bool, error) {
			now, err := s.rights.Load().Of(capabilityID, TypeHTTP)
			if err != nil {
				return false, err
			}
			return now.Host(host, port)
		}
		resp, err = h.Do(ctx, r)
	}
	return resp, s.observed(ctx, TypeHTTP, "request", capabilityID, began, err)
}

// messaging returns the provider of a messaging capability, if allow does not object.
func (s *Session) messaging(capabilityID string, allow func(*Right) error) (Messaging, error) {
	right, err := s.rights.Load().Of(capabilityID, TypeMessaging)
	if err != nil {
		return nil, err
	}
	if err := allow(right); err != nil {
		return nil, err
	}
	return s.directory.Messaging(Call{Caller: &s.caller, Grant: right.Grant})
}

func validateMessage(subject string, data []byte) error {
	if err := ValidateSubject(subject); err != nil {
		return Errorf(InvalidRequest, "%w", err)
	}
	if len(data) > MaxMessage {
		return Errorf(Exhausted, "a message of %d bytes: at most %d", len(data), MaxMessage)
	}
	return nil
}

// Publish sends a message.
func (s *Session) Publish(ctx context.Context, capabilityID, subject string, data []byte) (err error) {
	ctx, began := s.begin(ctx, TypeMessaging, "publish")
	m, err := s.messaging(capabilityID, func(r *Right) error { return r.PublishTo(subject) })
	if err == nil {
		err = validateMessage(subject, data)
	}
	if err == nil {
		err = m.Publish(ctx, subject, data)
	}
	return s.observed(ctx, TypeMessaging, "publish", capabilityID, began, err)
}

// Ask sends a message and waits for one answer, until ctx ends.
func (s *Session) Ask(ctx context.Context, capabilityID, subject string, data []byte) (reply Message, err error) {
	ctx, began := s.begin(ctx, TypeMessaging, "request")
	m, err := s.messaging(capabilityID, func(r *Right) error { return r.PublishTo(subject) })
	if err == nil {
		err = validateMessage(subject, data)
	}
	if err == nil {
		reply, err = m.Request(ctx, subject, data)
	}
	return reply, s.observed(ctx, TypeMessaging, "request", capabilityID, began, err)
}

// Answer sends the answer to the message that was received last, if that expects one. It needs no
// permission beyond the one to receive the message.
func (s *Session) Answer(ctx context.Context, data []byte) (err error) {
	ctx, began := s.begin(ctx, TypeMessaging, "answer")
	asked, err := s.inbox.takeAsked()
	if err != nil {
		return s.observed(ctx, TypeMessaging, "answer", "", began, err)
	}
	m, err := s.messaging(asked.capabilityID, func(r *Right) error { return r.HearFrom(asked.pattern) })
	if err == nil && len(data) > MaxMessage {
		err = Errorf(Exhausted, "a message of %d bytes: at most %d", len(data), MaxMessage)
	}
	if err == nil {
		err = m.Reply(ctx, asked.subject, data)
	}
	return s.observed(ctx, TypeMessaging, "answer", asked.capabilityID, began, err)
}

func (s *Session) mayHear(rights *Rights, capabilityID, subject string) error {
	right, err := rights.Of(capabilityID, TypeMessaging)
	if err != nil {
		return err
	}
	return right.HearFrom(subject)
}

// Subscribe begins to receive what is sent to a subject, and returns the number of the subscription. Replicas share
// the messages, unless each is to have all.
func (s *Session) Subscribe(ctx context.Context, capabilityID, subject string, each bool) (id uint32, err error) {
	ctx, began := s.begin(ctx, TypeMessaging, "subscribe")
	id, err = s.subscribe(ctx, capabilityID, subject, each)
	return id, s.observed(ctx, TypeMessaging, "subscribe", capabilityID, began, err)
}

func (s *Session) subscribe(ctx context.Context, capabilityID, subject string, each bool) (uint32, error) {
	if err := ValidatePattern(subject); err != nil {
		return 0, Errorf(InvalidRequest, "%w", err)
	}
	m, err := s.messaging(capabilityID, func(r *Right) error { return r.HearFrom(subject) })
	if err != nil {
		return 0, err
	}
	sub, err := s.inbox.open(capabilityID, subject)
	if err != nil {
		return 0, err
	}
	queue := s.caller.Name
	if each {
		queue = ""
	}
	handle, err := m.Subscribe(ctx, subject, queue, func(msg Message) {
		if !s.inbox.deliver(sub, msg) {
			s.observer.Dropped(s.caller)
		}
	})
	if err != nil {
		s.inbox.forget(sub)
		return 0, err
	}
	s.inbox.opened(sub, handle)
	// The grant may have been revoked since it was looked at, when there was nothing to cut yet.
	s.inbox.cut(func(sub *subscription) error { return s.mayHear(s.rights.Load(), sub.capabilityID, sub.subject) })
	return sub.id, nil
}

// Unsubscribe ends a subscription, and drops what came by it and was not received.
func (s *Session) Unsubscribe(id uint32) error {
	ctx, began := s.begin(context.Background(), TypeMessaging, "unsubscribe")
	capabilityID, err := s.inbox.unsubscribe(id)
	return s.observed(ctx, TypeMessaging, "unsubscribe", capabilityID, began, err)
}

// Receive waits for a message of one subscription, or with id 0 of any, for so long at the most; Timeout when none came.
// A subscription that was revoked is PermissionDenied, also for a Receive that is waiting.
func (s *Session) Receive(ctx context.Context, id uint32, wait time.Duration) (from uint32, m Message, err error) {
	ctx, began := s.begin(ctx, TypeMessaging, "receive")
	from, m, capabilityID, err := s.inbox.receive(ctx, id, wait)
	return from, m, s.observed(ctx, TypeMessaging, "receive", capabilityID, began, err)
}

// Dropped returns how many messages were dropped since the instance did not receive the ones before.
func (s *Session) Dropped() uint64 { return s.inbox.droppedSoFar() }
