package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/wasmatrix/wasmatrix/tracing/otlp"
)

// tracesTimeout is how long a node that ends waits for the collector to take the last spans.
const tracesTimeout = 2 * time.Second

// openTraces returns what takes the node's spans to a collector; nil if nobody wants them. A node works without, so what is wrong
// with how they are wanted is logged.
func openTraces(ctx context.Context, cfg Config, id string) *otlp.Provider {
	traces, err := otlp.Open(ctx, otlp.Config{
		Version: cfg.Version, NodeID: id, NodeName: cfg.NodeName,
		Report: func(err error) {
			if err != nil {
				cfg.Log.WarnContext(ctx, "spans do not reach the collector, and are lost", "err", err)
				return
			}
			cfg.Log.InfoContext(ctx, "spans reach the collector again")
		},
	})
	if err != nil {
		cfg.Log.WarnContext(ctx, "this node makes no spans: the OTEL_ variables of its environment can't be used", "err", err)
	}
	return traces
}

func closeTraces(log *slog.Logger, traces *otlp.Provider) {
	ctx, cancel := context.WithTimeout(context.Background(), tracesTimeout)
	defer cancel()
	if err := traces.Close(ctx); err != nil {
		log.WarnContext(ctx, "the collector did not take the last spans", "err", err)
	}
}
