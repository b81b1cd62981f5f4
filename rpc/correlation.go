package rpc

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// correlationHeader carries a request's correlation id, in and out.
const correlationHeader = "x-correlation-id"

// maxCorrelation bounds an id from outside: it goes into every log line of its request.
const maxCorrelation = 128

type correlationID struct{}

// WithCorrelationID makes the calls made with ctx carry id. A server does it for what it serves, so
// that the calls a request causes on other nodes carry the request's id.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationID{}, id)
}

// CorrelationID returns the id of the request that ctx belongs to, or "".
func CorrelationID(ctx context.Context) string {
	id, _ := ctx.Value(correlationID{}).(string)
	return id
}

// incomingCorrelation returns the caller's id if it is fit for a log, or a new one.
func incomingCorrelation(ctx context.Context) string {
	if ids := metadata.ValueFromIncomingContext(ctx, correlationHeader); len(ids) == 1 && printable(ids[0]) {
		return ids[0]
	}
	return uuid.NewString()
}

func printable(id string) bool {
	if id == "" || len(id) > maxCorrelation {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

func outgoingCorrelation(ctx context.Context) context.Context {
	id := CorrelationID(ctx)
	if id == "" {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	if len(md.Get(correlationHeader)) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, correlationHeader, id)
}

func correlateUnary(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(outgoingCorrelation(ctx), method, req, resp, conn, opts...)
}

func correlateStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(outgoingCorrelation(ctx), desc, conn, method, opts...)
}
