package tracing

import (
	"context"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
)

const (
	// CorrelationHeader carries a request's correlation id, in and out, over gRPC and HTTP.
	CorrelationHeader = "x-correlation-id"
	// CorrelationKey names it in logs, in the details of errors, and in those of events.
	CorrelationKey = "correlation_id"

	// maxCorrelation bounds an id from outside: it goes into every log line of its request.
	maxCorrelation = 128
)

type correlationID struct{}

// WithCorrelationID makes id that of the request that ctx belongs to.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationID{}, id)
}

// CorrelationID returns the id of the request that ctx belongs to, or "".
func CorrelationID(ctx context.Context) string {
	id, _ := ctx.Value(correlationID{}).(string)
	return id
}

// NewCorrelationID returns an id that no other request has.
func NewCorrelationID() string { return uuid.NewString() }

// FitCorrelationID says whether an id from outside is fit for a log: 1 to 128 characters of printable ASCII without a space.
func FitCorrelationID(id string) bool {
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

// Details adds the correlation id of ctx, if there is one, to the details of an event or error, which may be nil.
func Details(ctx context.Context, details map[string]string) map[string]string {
	id := CorrelationID(ctx)
	if id == "" {
		return details
	}
	if details == nil {
		details = make(map[string]string, 1)
	}
	details[CorrelationKey] = id
	return details
}

// Follow returns life with the ids of a request: for work that the request has caused, and that does not end with it.
func Follow(life, request context.Context) context.Context {
	if id := CorrelationID(request); id != "" {
		life = WithCorrelationID(life, id)
	}
	if s := trace.SpanFromContext(request); s.SpanContext().IsValid() {
		life = trace.ContextWithSpan(life, s)
	}
	return life
}
