package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// parts runs what a node is made of: started in order, stopped in reverse, each waited for.
type parts struct {
	ctx     context.Context // what the parts' contexts come from; never canceled itself
	log     *slog.Logger
	running []*part
	failed  chan error // the first part that ends by itself says so here
}

type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

func newParts(ctx context.Context, log *slog.Logger) *parts {
	return &parts{ctx: context.WithoutCancel(ctx), log: log, failed: make(chan error, 1)}
}

func (p *parts) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(p.ctx)
	one := &part{name: name, cancel: cancel, done: make(chan struct{})}
	p.running = append(p.running, one)
	go func() {
		defer close(one.done)
		err := run(ctx)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				p.log.Warn("a part of the node did not stop cleanly", "part", name, "err", err)
			}
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		select {
		case p.failed <- fmt.Errorf("%s: %w", name, err):
		default: // another part failed first
		}
	}()
}

// stop stops one part ahead of the others.
func (p *parts) stop(name string) {
	for _, one := range p.running {
		if one.name == name {
			one.cancel()
			<-one.done
		}
	}
}

// stopAll stops all parts, the last started first.
func (p *parts) stopAll() {
	for _, one := range slices.Backward(p.running) {
		one.cancel()
		<-one.done
	}
}
