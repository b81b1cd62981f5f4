package httpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

// Config says what one request may cost.
type Config struct {
	MaxBody      int64         // bytes of a request's and of a response's body. Default 10 MiB
	MaxHeader    int64         // bytes of a request's and of a response's header. Default 1 MiB, as net/http has it
	MaxRedirects int           // Default 10, as browsers and net/http have about
	Timeout      time.Duration // for all of a request that sets no limit. Default 5s, in which a provider has to answer
	MaxTimeout   time.Duration // the highest limit that a request may set. Default 60s

	UserAgent string         // where a request has none. Default wasmatrix
	Resolver  *net.Resolver  // nil for the system's
	RootCAs   *x509.CertPool // nil for the system's
}

func (c Config) withDefaults() Config {
	if c.MaxBody == 0 {
		c.MaxBody = capability.DefaultBody
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = 1 << 20
	}
	if c.MaxRedirects == 0 {
		c.MaxRedirects = 10
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.MaxTimeout == 0 {
		c.MaxTimeout = max(time.Minute, c.Timeout)
	}
	if c.UserAgent == "" {
		c.UserAgent = "wasmatrix"
	}
	return c
}

// Validate says what can't work.
func (c Config) Validate() error {
	switch {
	case c.MaxBody < 0 || c.MaxHeader < 0 || c.MaxRedirects < 0:
		return fmt.Errorf("limits of %d bytes of body, %d bytes of header and %d redirects: want none below 0", c.MaxBody, c.MaxHeader, c.MaxRedirects)
	case c.Timeout < 0 || c.MaxTimeout < 0 || c.MaxTimeout < c.Timeout:
		return fmt.Errorf("a timeout of %s, and of %s at the most: want the second to be the longer one", c.Timeout, c.MaxTimeout)
	}
	return nil
}

const (
	// A dial goes on when its request is over, since the next may want the connection; so it ends by itself.
	dialTimeout = 10 * time.Second
	idleTimeout = 90 * time.Second // of a connection that is kept for reuse, as net/http has it
	idlePerHost = 32               // connections: about as many guests as ask one host at once
	idleInAll   = 512              // connections: file descriptors are the node's
)

// Client makes requests, for all guests of a node that use a provider. Connections are reused between them.
type Client struct {
	cfg    Config
	public *http.Transport // to addresses of the public Internet
	named  *http.Transport // to any, for hosts that a permission names
}

var _ capability.HTTP = (*Client)(nil)

// New returns a client.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, public: transport(cfg, dialPublic(cfg.Resolver)), named: transport(cfg, dialer(cfg.Resolver).DialContext)}, nil
}

func dialer(r *net.Resolver) *net.Dialer { return &net.Dialer{Timeout: dialTimeout, Resolver: r} }

func transport(cfg Config, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // see the package's comment
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second}, // a dead connection is noticed
		DisableCompression:     true,
		MaxResponseHeaderBytes: cfg.MaxHeader,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConns:           idleInAll,
		MaxIdleConnsPerHost:    idlePerHost,
	}
}

// Check says whether requests can be made at all; which hosts answer is no matter of the provider.
func (c *Client) Check(context.Context) error { return nil }

// Close ends the connections that nobody uses. Requests on their way go on.
func (c *Client) Close() {
	c.public.CloseIdleConnections()
	c.named.CloseIdleConnections()
}

// Do makes a request. ctx is for all of it, up to the end of the response's body, which is to be closed. The
// request's body may be read until then, and must stay as it is. A bytes.Reader or a strings.Reader is sent again where a
// redirect asks for that; with another body such a response is returned as it is.
func (c *Client) Do(ctx context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	limit, err := c.limit(r.Limit)
	if err != nil {
		return nil, err
	}
	first, err := c.firstHop(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	last, resp, err := c.follow(ctx, first, r.Allow) //nolint:bodyclose // the caller closes it
	if err != nil {
		err = last.failed(ctx, limit, err)
		cancel()
		return nil, err
	}
	body := &download{
		from: resp.Body, left: c.cfg.MaxBody, cancel: cancel,
		tooLong: capability.Errorf(capability.Exhausted, "the body of the response of %s has more than %d bytes", last.host, c.cfg.MaxBody),
		failed:  func(err error) error { return last.failed(ctx, limit, err) },
	}
	return &capability.HTTPResponse{Status: resp.StatusCode, Header: fields(resp.Header), Body: body}, nil
}

func (c *Client) limit(wanted time.Duration) (time.Duration, error) {
	switch {
	case wanted == 0:
		return c.cfg.Timeout, nil
	case wanted < 0, wanted > c.cfg.MaxTimeout:
		return 0, capability.Errorf(capability.InvalidRequest, "a time limit of %s: want one up to %s", wanted, c.cfg.MaxTimeout)
	}
	return wanted, nil
}

// follow returns the response of the last hop. With an error, the hop is the one that failed.
func (c *Client) follow(ctx context.Context, h *hop, allow func(host, port string) (bool, error)) (*hop, *http.Response, error) {
	for redirects := 0; ; redirects++ {
		if redirects > c.cfg.MaxRedirects {
			return h, nil, capability.Errorf(capability.Exhausted, "%d redirects and no end, the last to %s", redirects, h.host)
		}
		if allow == nil {
			return h, nil, capability.Errorf(capability.PermissionDenied, "nobody says which hosts a request may go to")
		}
		named, err := allow(h.host, h.port)
		if err != nil {
			return h, nil, err
		}
		transport := c.public
		if named {
			transport = c.named
		}
		resp, err := transport.RoundTrip(h.request(ctx))
		if err != nil {
			return h, nil, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			_ = resp.Body.Close() // it is of no use
			return h, nil, capability.Errorf(capability.Unavailable, "%s switches protocols, which nobody asked for", h.host)
		}
		next, err := c.nextHop(h, resp)
		if err != nil || next != nil {
			discard(resp)
		}
		if err != nil {
			return h, nil, err
		}
		if next == nil {
			return h, resp, nil
		}
		h = next
	}
}

// discard reads what is left of a small body, so that the connection can be used again.
func discard(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4096 {
		_, _ = io.CopyN(io.Discard, resp.Body, resp.ContentLength) // a connection that is spoiled is not reused
	}
	_ = resp.Body.Close() // nobody wants the rest
}

// fields returns a header in one order.
func fields(h http.Header) []capability.HTTPField {
	all := make([]capability.HTTPField, 0, len(h))
	for name, values := range h {
		for _, value := range values {
			all = append(all, capability.HTTPField{Name: name, Value: value})
		}
	}
	slices.SortStableFunc(all, func(a, b capability.HTTPField) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// failed gives an error of a hop its status, and words that say nothing of query or header: they may hold secrets.
func (h *hop) failed(ctx context.Context, limit time.Duration, err error) error {
	if own := h.body.failure(); own != nil {
		return own
	}
	if e, ok := errors.AsType[*capability.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return capability.Errorf(capability.Timeout, "%s did not answer in full within %s: %w", h.host, limit, ctx.Err())
	case ctx.Err() != nil:
		return capability.FromError(ctx.Err())
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return capability.Errorf(capability.Unavailable, "there is no host %s", h.host)
		}
		return capability.Errorf(capability.Unavailable, "host %s can't be resolved: %s", h.host, e.Err)
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return capability.Errorf(capability.Unavailable, "the certificate of %s is not trusted: %w", h.host, e.Err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return capability.Errorf(capability.Unavailable, "%s does not speak TLS on port %s", h.host, h.port)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL
	}
	// net/http has no type for it.
	if text := err.Error(); strings.Contains(text, "response headers exceeded") || strings.Contains(text, "header list larger") {
		return capability.Errorf(capability.Exhausted, "the header of the response of %s is too large: %w", h.host, err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return capability.Errorf(capability.Unavailable, "the connection to %s ended in the middle of the response", h.host)
	}
	return capability.Errorf(capability.Unavailable, "request to %s: %w", h.host, err)
}
