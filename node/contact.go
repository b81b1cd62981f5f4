package node

import (
	"context"
	"time"
)

const (
	// How often the leader's grant is renewed while something here depends on it: four times within what one
	// grant is good for, so that losing two of them does no harm.
	contactEvery = time.Second
	// How soon it is tried again after a failure, or while something waits for the leader's word.
	contactAgain = 200 * time.Millisecond
	// How long one attempt may take.
	contactTimeout = time.Second
)

// keepContact keeps the agent in contact with whoever leads, while it runs what must end without.
func (n *node) keepContact(ctx context.Context) error {
	for {
		var next <-chan time.Time
		if req := n.agent.ContactRequest(); req != nil {
			sent := time.Now()
			call, cancel := context.WithTimeout(ctx, contactTimeout)
			resp, err := n.self.RenewContact(call, req)
			cancel()
			if err == nil {
				err = n.agent.Contact(sent, resp)
			}
			next = time.After(contactEvery)
			if err != nil || len(resp.GetCleared()) < len(req.GetWaiting()) {
				next = time.After(contactAgain)
			}
			if err != nil && ctx.Err() == nil {
				n.cfg.Log.DebugContext(ctx, "no contact with the leader; trying again", "err", err)
			}
		}
		select {
		case <-n.agent.ContactWanted():
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}
