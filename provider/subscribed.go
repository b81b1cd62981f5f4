package provider

import (
	"context"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

// localMessaging is a messaging provider of this node, as one instance calls it.
type localMessaging struct {
	boundedMessaging

	host *Host
	*entry
	call capability.Call
}

// Subscribe implements [capability.Messaging]. The subscription outlives the provider's engine: when that is stopped, changed or
// moved to another node, it is made again as soon as there is one. What is sent meanwhile is missed.
func (l localMessaging) Subscribe(ctx context.Context, subject, queue string, deliver func(capability.Message)) (capability.Subscription, error) {
	first, err := l.boundedMessaging.Subscribe(ctx, subject, queue, deliver)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(l.host.life)
	k := &keptSubscription{end: end, ended: make(chan struct{})}
	again := func(m capability.Messaging) (capability.Subscription, error) {
		return m.Subscribe(life, subject, queue, deliver)
	}
	go func() {
		defer close(k.ended)
		l.host.keep(life, l.call, first, l.here.ctx.Done(), again)
	}()
	return k, nil
}

// keptSubscription is one that is made again when its engine ends.
type keptSubscription struct {
	end   context.CancelFunc
	ended chan struct{}
}

// Close implements [capability.Subscription].
func (k *keptSubscription) Close() error {
	k.end()
	<-k.ended
	return nil
}

// keep has a subscription at one engine after the other, until life ends; over is closed when the present engine ends.
func (h *Host) keep(life context.Context, c capability.Call, sub capability.Subscription, over <-chan struct{}, subscribe func(capability.Messaging) (capability.Subscription, error)) {
	for {
		select {
		case <-over:
		case <-life.Done():
		}
		_ = sub.Close() // its engine is gone, or nobody wants it
		for sub = nil; sub == nil; {
			if life.Err() != nil {
				return
			}
			if sub, over = h.again(c, subscribe); sub != nil {
				break
			}
			select {
			case <-time.After(askAgain):
			case <-life.Done():
			}
		}
	}
}

// again subscribes at the provider as it is now. One on other nodes keeps its subscriptions by itself.
func (h *Host) again(c capability.Call, subscribe func(capability.Messaging) (capability.Subscription, error)) (capability.Subscription, <-chan struct{}) {
	e, err := h.find(c, capability.TypeMessaging)
	if err != nil {
		return nil, nil
	}
	var m capability.Messaging = h.remote(e, c)
	var over <-chan struct{}
	if e.here != nil {
		engine, err := e.serving()
		if err != nil {
			return nil, nil
		}
		m, over = boundedMessaging{engine.Messaging, bounded{e.def.Settings.Timeout, e.here.ctx}}, e.here.ctx.Done()
	}
	sub, err := subscribe(m)
	if err != nil {
		return nil, nil
	}
	return sub, over
}
