package capability

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Limits of what one instance may have open and unreceived. Beyond them the newest message is dropped, as NATS does
// with a slow consumer, and counted.
const (
	MaxSubscriptions = 1000
	maxWaiting       = 1024    // messages
	maxWaitingBytes  = 8 << 20 // of their data
)

// inbox is an instance's subscriptions and what came by them. The zero value is empty.
type inbox struct {
	mu sync.Mutex // guards all below

	last    uint32
	subs    map[uint32]*subscription
	waiting []arrival
	bytes   int
	dropped uint64
	changed chan struct{} // closed and replaced when something may have come; nil while nobody waits
	asked   *asked        // the message received last, if it expects an answer
	closed  bool
}

type subscription struct {
	id           uint32
	capabilityID string
	subject      string

	// Guarded by inbox.mu.
	handle Subscription // nil until it is open
	refuse error        // why it was cut; the guest hears of it once
}

type arrival struct {
	sub *subscription
	msg Message
}

// asked is where an answer is expected.
type asked struct {
	capabilityID string
	pattern      string // by which the question was heard
	subject      string
}

// open makes room for a subscription.
func (b *inbox) open(capabilityID, subject string) (*subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, Errorf(Interrupted, "the instance is being ended")
	}
	if len(b.subs) >= MaxSubscriptions {
		return nil, Errorf(Exhausted, "the instance has %d subscriptions, and no more are allowed", len(b.subs))
	}
	if b.subs == nil {
		b.subs = map[uint32]*subscription{}
	}
	b.last++
	sub := &subscription{id: b.last, capabilityID: capabilityID, subject: subject}
	b.subs[sub.id] = sub
	return sub, nil
}

// opened notes what closes a subscription; if that is wanted already, it is closed now.
func (b *inbox) opened(sub *subscription, handle Subscription) {
	b.mu.Lock()
	unwanted := b.closed || sub.refuse != nil || b.subs[sub.id] != sub
	if !unwanted {
		sub.handle = handle
	}
	b.mu.Unlock()
	if unwanted {
		_ = handle.Close() // there is nobody to tell
	}
}

func (b *inbox) forget(sub *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, sub.id)
}

// deliver takes a message in; false if it was dropped for want of room.
func (b *inbox) deliver(sub *subscription, m Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || sub.refuse != nil || b.subs[sub.id] != sub {
		return true // nobody wants it any more
	}
	if len(b.waiting) >= maxWaiting || b.bytes+len(m.Data) > maxWaitingBytes {
		b.dropped++
		return false
	}
	b.waiting = append(b.waiting, arrival{sub: sub, msg: m})
	b.bytes += len(m.Data)
	b.wakeLocked()
	return true
}

func (b *inbox) wakeLocked() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// cut ends the subscriptions to which check objects.
func (b *inbox) cut(check func(*subscription) error) {
	b.mu.Lock()
	var handles []Subscription
	for _, sub := range b.subs {
		if sub.refuse != nil {
			continue
		}
		if sub.refuse = check(sub); sub.refuse == nil {
			continue
		}
		if sub.handle != nil {
			handles = append(handles, sub.handle)
		}
		b.dropLocked(sub)
	}
	b.wakeLocked()
	b.mu.Unlock()
	for _, h := range handles {
		_ = h.Close() // what it still delivers is dropped
	}
}

// dropLocked drops what came by a subscription.
func (b *inbox) dropLocked(sub *subscription) {
	b.waiting = slices.DeleteFunc(b.waiting, func(a arrival) bool {
		if a.sub != sub {
			return false
		}
		b.bytes -= len(a.msg.Data)
		return true
	})
}

func (b *inbox) unsubscribe(id uint32) (capabilityID string, err error) {
	b.mu.Lock()
	sub := b.subs[id]
	if sub == nil {
		b.mu.Unlock()
		return "", Errorf(InvalidRequest, "there is no subscription %d", id)
	}
	delete(b.subs, id)
	b.dropLocked(sub)
	handle := sub.handle
	b.mu.Unlock()
	if handle != nil {
		return sub.capabilityID, handle.Close()
	}
	return sub.capabilityID, nil
}

// receive waits for a message.
func (b *inbox) receive(ctx context.Context, id uint32, wait time.Duration) (from uint32, m Message, capabilityID string, err error) {
	var timeout <-chan time.Time
	for {
		got, changed, err := b.take(id)
		switch {
		case err != nil && got.sub != nil: // it was cut
			return 0, Message{}, got.sub.capabilityID, err
		case err != nil:
			return 0, Message{}, "", err
		case got.sub != nil:
			return got.sub.id, got.msg, got.sub.capabilityID, nil
		}
		if timeout == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return 0, Message{}, "", Errorf(Timeout, "no message came within %s", wait)
		case <-ctx.Done():
			return 0, Message{}, "", Errorf(Interrupted, "the instance is being ended: %w", context.Cause(ctx))
		}
	}
}

// take returns the first message, or with an error the subscription that was cut, or a channel that is closed when
// there may be one.
func (b *inbox) take(id uint32) (arrival, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return arrival{}, nil, Errorf(Interrupted, "the instance is being ended")
	}
	if id != 0 && b.subs[id] == nil {
		return arrival{}, nil, Errorf(InvalidRequest, "there is no subscription %d", id)
	}
	if len(b.subs) == 0 {
		return arrival{}, nil, Errorf(InvalidRequest, "the instance has no subscription")
	}
	for n, a := range b.waiting {
		if id != 0 && a.sub.id != id {
			continue
		}
		b.waiting = slices.Delete(b.waiting, n, n+1)
		b.bytes -= len(a.msg.Data)
		b.asked = nil
		if a.msg.Reply != "" {
			b.asked = &asked{capabilityID: a.sub.capabilityID, pattern: a.sub.subject, subject: a.msg.Reply}
		}
		return a, nil, nil
	}
	for _, sub := range b.subs {
		if sub.refuse != nil && (id == 0 || id == sub.id) {
			delete(b.subs, sub.id)
			return arrival{sub: sub}, nil, sub.refuse
		}
	}
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return arrival{}, b.changed, nil
}

func (b *inbox) takeAsked() (*asked, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == nil {
		return nil, Errorf(InvalidRequest, "the message received last expects no answer, or has had one")
	}
	now := b.asked
	b.asked = nil
	return now, nil
}

func (b *inbox) droppedSoFar() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	var handles []Subscription
	for _, sub := range b.subs {
		if sub.handle != nil && sub.refuse == nil {
			handles = append(handles, sub.handle)
		}
	}
	b.subs, b.waiting, b.bytes = nil, nil, 0
	b.wakeLocked()
	b.mu.Unlock()
	for _, h := range handles {
		_ = h.Close()
	}
}
