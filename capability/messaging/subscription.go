package messaging

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/capability"
)

// subscription is one of a guest's.
type subscription struct {
	conn   *Conn
	nats   *nats.Subscription
	tooBig atomic.Uint64
	wild   bool // it leaves open how a subject begins, and so does not mean those that NATS reserves

	mu sync.Mutex // guards all below; held while a message is delivered, so that an end waits for it

	deliver func(capability.Message)
	ended   bool
}

// take is called by NATS, with one message at a time.
func (s *subscription) take(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended, s.wild && capability.Reserved(m.Subject):
	case len(m.Data) > capability.MaxMessage: // of a backend that allows more
		s.tooBig.Add(1)
	default:
		s.deliver(capability.Message{Subject: m.Subject, Data: m.Data, Reply: m.Reply})
	}
}

// stop has nothing delivered from now on.
func (s *subscription) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// dropped takes no lock, for it is asked under the connection's, and a delivery may use the connection.
func (s *subscription) dropped() uint64 {
	n := s.tooBig.Load()
	if slow, err := s.nats.Dropped(); err == nil && slow > 0 {
		n += uint64(slow)
	}
	return n
}

// Close ends the subscription, and returns when nothing of it is delivered any more. It is not to be called by the function
// that messages are delivered to.
func (s *subscription) Close() error {
	s.stop()
	s.conn.mu.Lock()
	if _, ok := s.conn.subs[s]; ok {
		s.conn.lost += s.dropped()
		delete(s.conn.subs, s)
	}
	s.conn.mu.Unlock()
	err := s.nats.Unsubscribe()
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil // it has ended with the connection
	}
	return err
}
