package runtime

import (
	"bytes"
	"context"
	"math"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

const (
	// defaultAnswer is how long a request waits for its answer where the guest does not say.
	defaultAnswer = 5 * time.Second
	// subscribeEach is the flag by which each replica has all messages.
	subscribeEach = 1
)

// message are the arguments that each sending call begins with.
func (h *host) message() (capabilityID, subject string, data []byte) {
	return h.takeCapability(), h.text("the subject"), h.bytes("the message", capability.MaxMessage)
}

func msgPublish(ctx context.Context, h *host) (int64, error) {
	id, subject, data := h.message()
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	return 0, s.Publish(ctx, id, subject, bytes.Clone(data))
}

func msgRequest(ctx context.Context, h *host) (int64, error) {
	id, subject, data := h.message()
	wait := h.takeTime()
	switch {
	case wait < 0:
		h.refuse(invalidArgument("to wait %s for an answer: want 0 for %s, or more", wait, defaultAnswer))
	case wait == 0:
		wait = defaultAnswer
	}
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answer, err := s.Ask(ctx, id, subject, bytes.Clone(data))
	if err != nil {
		return 0, err
	}
	h.result = answer.Data
	return int64(len(answer.Data)), nil
}

func msgReply(ctx context.Context, h *host) (int64, error) {
	data := h.bytes("the answer", capability.MaxMessage)
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	return 0, s.Answer(ctx, bytes.Clone(data))
}

func msgSubscribe(ctx context.Context, h *host) (int64, error) {
	id, subject := h.takeCapability(), h.text("the subject")
	flags := h.take()
	if flags&^subscribeEach != 0 {
		h.refuse(invalidArgument("flags %#x: only %#x is known", flags, subscribeEach))
	}
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	subscription, err := s.Subscribe(ctx, id, subject, flags&subscribeEach != 0)
	h.number = int64(subscription)
	return 0, err
}

func msgUnsubscribe(_ context.Context, h *host) (int64, error) {
	subscription := h.take()
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	return 0, s.Unsubscribe(subscription)
}

func msgReceive(ctx context.Context, h *host) (int64, error) {
	subscription, wait := h.take(), h.takeTime()
	if wait < 0 {
		wait = math.MaxInt64
	}
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	from, m, err := s.Receive(ctx, subscription, wait)
	if err != nil {
		return 0, err
	}
	h.result = make([]byte, 0, itemSize(m.Subject)+itemSize(m.Data))
	h.result = appendItem(appendItem(h.result, m.Subject), m.Data)
	h.number = int64(from)
	return truth(m.Reply != ""), nil
}

func msgDropped(_ context.Context, h *host) (int64, error) {
	s, err := h.granted()
	if err != nil {
		return 0, err
	}
	h.number = int64(s.Dropped())
	return 0, nil
}
