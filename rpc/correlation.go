package rpc

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/wasmatrix/wasmatrix/tracing"
)

// incomingCorrelation returns the caller's id if it is fit for a log, or a new one.
func incomingCorrelation(ctx context.Context) string {
	if ids := metadata.ValueFromIncomingContext(ctx, tracing.CorrelationHeader); len(ids) == 1 && tracing.FitCorrelationID(ids[0]) {
		return ids[0]
	}
	return tracing.NewCorrelationID()
}

func outgoingCorrelation(ctx context.Context) context.Context {
	id := tracing.CorrelationID(ctx)
	if id == "" {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	if len(md.Get(tracing.CorrelationHeader)) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, tracing.CorrelationHeader, id)
}

// Correlated returns err with the correlation id of the request that it is of, if it has none.
func Correlated(ctx context.Context, err error) error {
	id := tracing.CorrelationID(ctx)
	if err == nil || id == "" {
		return err
	}
	e := FromError(err)
	if e.Details[tracing.CorrelationKey] != "" {
		return err
	}
	return e.With(tracing.CorrelationKey, id)
}
