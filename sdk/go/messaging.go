package wasmatrix

import (
	"errors"
	"iter"
	"time"

	"github.com/wasmatrix/wasmatrix/sdk/go/internal/abi"
)

// Forever is how long a Receive may wait that is to wait as long as the instance runs.
const Forever time.Duration = -1

// Bus passes messages on, at most once each, between those who are there.
type Bus struct{ capability string }

// Messaging returns the bus that a capability stands for.
func Messaging(capability string) Bus { return Bus{capability} }

// Publish sends a message to whoever subscribes to the subject.
func (b Bus) Publish(subject string, message []byte) error {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	at, size := abi.Data(message)
	_, err := abi.Called(abi.MsgPublish(b.capability, subject, at, size))
	return err
}

// Request sends a message and waits for one answer, for so long at the most: [ErrTimeout]. It is [ErrUnavailable] where nobody
// subscribes.
func (b Bus) Request(subject string, message []byte, timeout time.Duration) (answer []byte, err error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	at, size := abi.Data(message)
	if _, err := abi.Called(abi.MsgRequest(b.capability, subject, at, size, max(1, abi.Milliseconds(timeout)))); err != nil {
		return nil, err
	}
	return abi.Result(), nil
}

// Subscription is what comes by one subject.
type Subscription struct{ id uint32 }

// Subscribe begins to receive what is sent to a subject, in which * is any one token and > all that follow. The
// instances of one name share the messages.
func (b Bus) Subscribe(subject string) (Subscription, error) { return b.subscribe(subject, 0) }

// SubscribeEach is Subscribe where each instance has all messages.
func (b Bus) SubscribeEach(subject string) (Subscription, error) { return b.subscribe(subject, 1) }

func (b Bus) subscribe(subject string, flags uint32) (Subscription, error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	if _, err := abi.Called(abi.MsgSubscribe(b.capability, subject, flags)); err != nil {
		return Subscription{}, err
	}
	return Subscription{uint32(abi.ResultNumber())}, nil
}

// Message is one that was received.
type Message struct {
	Subject string
	Data    []byte
	// Whether the sender waits for an answer.
	ExpectsReply bool
	// By which it came.
	Subscription Subscription
}

// Reply answers a message. It must be the one that was received last.
func (m Message) Reply(answer []byte) error {
	if !m.ExpectsReply {
		return &Error{Status: ErrInvalidRequest.Status, Message: "the sender expects no answer"}
	}
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	_, err := abi.Called(abi.MsgReply(abi.Data(answer)))
	return err
}

// Receive waits for the next message, for so long at the most: [ErrTimeout].
func (s Subscription) Receive(timeout time.Duration) (Message, error) { return receive(s.id, timeout) }

// Receive waits for the next message of any subscription.
func Receive(timeout time.Duration) (Message, error) { return receive(0, timeout) }

func receive(id uint32, timeout time.Duration) (Message, error) {
	wait := int64(-1)
	if timeout >= 0 {
		wait = abi.Milliseconds(timeout)
	}
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	reply, err := abi.Called(abi.MsgReceive(id, wait))
	if err != nil {
		return Message{}, err
	}
	m := Message{ExpectsReply: reply > 0, Subscription: Subscription{uint32(abi.ResultNumber())}}
	if parts := abi.Items(abi.Result()); len(parts) == 2 {
		m.Subject, m.Data = string(parts[0]), parts[1]
	}
	return m, nil
}

// Messages goes through the messages as they come. It ends with an error, as when the grant is revoked.
func (s Subscription) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := s.Receive(Forever)
			if errors.Is(err, ErrTimeout) { // for ever is as long as the host can count
				continue
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Unsubscribe ends a subscription, and drops what came by it and was not received.
func (s Subscription) Unsubscribe() error {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	_, err := abi.Called(abi.MsgUnsubscribe(s.id))
	return err
}

// Dropped returns how many messages were dropped, since this instance did not receive the ones before.
func Dropped() (int64, error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	if _, err := abi.Called(abi.MsgDropped()); err != nil {
		return 0, err
	}
	return abi.ResultNumber(), nil
}
