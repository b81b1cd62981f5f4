package capability

import (
	"context"
	"io"
	"time"
	"unicode/utf8"
)

// Caller is the instance on whose behalf a call is made.
type Caller struct {
	InstanceID string
	Name       string // which it shares with its replicas
}

// Call is a caller and the grant by which it calls.
type Call struct {
	Caller *Caller
	Grant  *Grant
}

// Directory finds the provider of a capability, here or on another node. An error is an [*Error]: Unavailable where
// it is stopped or nobody runs it, UnknownGrant where there is none of that id.
type Directory interface {
	KV(c Call) (KV, error)
	HTTP(c Call) (HTTP, error)
	Messaging(c Call) (Messaging, error)
}

// Limits of keys and values.
const (
	MaxKey      = 512     // bytes of UTF-8
	MaxValue    = 1 << 20 // bytes
	MaxList     = 1000    // keys in one page
	MaxMessage  = 1 << 20 // bytes of one message
	DefaultBody = 10 << 20
)

// Entry is what a key holds.
type Entry struct {
	Value    []byte // not to be changed: engines may share it
	Revision uint64 // raised with each write of the key; never 0
}

// SetOptions says how a key is written.
type SetOptions struct {
	// How long it lives; 0 for ever. Engines may round it up to whole seconds.
	TTL time.Duration
	// Write only if the key is at this revision, 0 meaning that it must not exist; else Conflict. nil for in any case.
	IfRevision *uint64
}

// KV is keys and values in buckets. A write that was answered is durable as far as its engine promises, and seen by
// every later read. Errors are [*Error]; a write that ends with Timeout or Unavailable may have been done.
type KV interface {
	// Get returns what a key holds, or NotFound.
	Get(ctx context.Context, bucket, key string) (Entry, error)
	// Exists says whether there is such a key, and at which revision.
	Exists(ctx context.Context, bucket, key string) (revision uint64, ok bool, err error)
	// Set writes a key and returns its new revision.
	Set(ctx context.Context, bucket, key string, value []byte, o SetOptions) (revision uint64, err error)
	// Delete removes a key and says whether it was there. With ifRevision only one at that revision; else Conflict.
	Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (existed bool, err error)
	// Increment adds to a number that is kept as decimal text, in one step, and returns the sum. A key that is not
	// there counts as 0; what is no number, or would not fit into 64 bits, is InvalidRequest. A TTL stays as it is.
	Increment(ctx context.Context, bucket, key string, by int64) (int64, error)
	// List returns the keys with a prefix that come after a key in the order of their bytes, at most limit, and whether
	// there are more.
	List(ctx context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error)
}

// HTTPField is one line of a header.
type HTTPField struct{ Name, Value string }

// HTTPRequest is a request to another host.
type HTTPRequest struct {
	Method string
	URL    string
	Header []HTTPField
	Body   io.Reader     // nil for none
	Length int64         // of the body; -1 where nobody knows
	Limit  time.Duration // for all of it, the response's body included; 0 for the provider's own
	// Allow says for each host that the request comes to, redirects included, whether it may go there; named where a
	// grant means exactly that host, so that it may be a private one.
	Allow func(host, port string) (named bool, err error)
}

// HTTPResponse is what came back. The body ends with an error where it is longer than the provider allows.
type HTTPResponse struct {
	Status int
	Header []HTTPField
	Body   io.ReadCloser
}

// HTTP makes requests.
type HTTP interface {
	Do(ctx context.Context, r *HTTPRequest) (*HTTPResponse, error)
}

// Message is one that was received.
type Message struct {
	Subject string
	Data    []byte
	Reply   string // where an answer is expected; empty where none is
}

// Messaging passes messages on between those who are there, at most once each.
type Messaging interface {
	// Publish sends a message to whoever subscribes to the subject.
	Publish(ctx context.Context, subject string, data []byte) error
	// Reply sends the answer to a message that was received, to where that expects it.
	Reply(ctx context.Context, to string, data []byte) error
	// Request sends a message and waits for one answer, until ctx ends. Unavailable where nobody subscribes.
	Request(ctx context.Context, subject string, data []byte) (Message, error)
	// Subscribe has deliver called with each message, one at a time; deliver must not block. Those of one queue share
	// the messages. The subscription ends with Close, not with ctx, and outlives broken connections.
	Subscribe(ctx context.Context, subject, queue string, deliver func(Message)) (Subscription, error)
}

// Subscription is one that is there until it is closed.
type Subscription interface {
	// Close ends it. Nothing is delivered once it has returned.
	Close() error
}

// ValidateKey says what is wrong with a key.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return Errorf(InvalidRequest, "the key is empty")
	case len(key) > MaxKey:
		return Errorf(InvalidRequest, "a key of %d bytes: at most %d", len(key), MaxKey)
	case !utf8.ValidString(key):
		return Errorf(InvalidRequest, "the key is not UTF-8")
	}
	return nil
}

// ValidateBucket says what is wrong with the name of a bucket.
func ValidateBucket(bucket string) error {
	if !bucketPattern.MatchString(bucket) {
		return Errorf(InvalidRequest, "bucket %q: want 1 to 64 letters, digits, dots, dashes or underscores", clip(bucket))
	}
	return nil
}
