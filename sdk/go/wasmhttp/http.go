package wasmhttp

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/wasmatrix/wasmatrix/sdk/go/internal/abi"
)

// Transport makes the requests that a capability allows, at most 16 at once.
type Transport struct{ Capability string }

// Client returns a client that makes its requests by a capability. Redirects are followed by the provider, which asks at each whether the grant allows
// the host. A deadline of the client or of a request's context is kept; that a context is canceled shows only
// between reads and writes.
func Client(capability string) *http.Client {
	return &http.Client{Transport: Transport{Capability: capability}}
}

var _ http.RoundTripper = Transport{}

// chunk is how much of a request's body is passed on at once.
const chunk = 32 << 10

// RoundTrip makes one request. Bodies are streamed, both ways.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x, err := t.open(r)
	if err == nil && r.Body != nil {
		err = x.write(r)
	}
	var resp *http.Response
	if err == nil {
		resp, err = x.send()
	}
	if r.Body != nil {
		_ = r.Body.Close() // as a RoundTripper must
	}
	if err != nil {
		_ = x.Close() // what failed says more
		return nil, err
	}
	resp.Request = r
	return resp, nil
}

// exchange is a request that is open.
type exchange struct {
	request int32
	ended   bool
	cancel  <-chan struct{} // of the request's context
	why     func() error
}

func (t Transport) open(r *http.Request) (*exchange, error) {
	x := &exchange{cancel: r.Context().Done(), why: r.Context().Err}
	var header []byte
	for name, values := range r.Header {
		for _, value := range values {
			header = abi.AppendItem(abi.AppendItem(header, name), value)
		}
	}
	if r.Host != "" && r.Host != r.URL.Host {
		header = abi.AppendItem(abi.AppendItem(header, "Host"), r.Host)
	}
	length := r.ContentLength
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		length = 0
	case length == 0:
		length = -1
	}
	var limit int64
	if deadline, ok := r.Context().Deadline(); ok {
		limit = max(1, abi.Milliseconds(time.Until(deadline)))
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	at, size := abi.Data(header)
	var err error
	x.request, err = abi.Called(abi.HTTPOpen(t.Capability, method, r.URL.String(), at, size, length, limit))
	return x, err
}

func (x *exchange) write(r *http.Request) error {
	part := make([]byte, chunk)
	for {
		n, err := r.Body.Read(part)
		if n > 0 {
			abi.Calling.Lock()
			at, size := abi.Data(part[:n])
			taken, failed := abi.Called(abi.HTTPWrite(x.request, at, size))
			abi.Calling.Unlock()
			if failed != nil {
				return failed
			}
			if int(taken) < n { // the server wants no more; its answer says why
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := x.canceled(); err != nil {
			return err
		}
	}
}

func (x *exchange) send() (*http.Response, error) {
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	status, err := abi.Called(abi.HTTPSend(x.request))
	if err != nil {
		return nil, err
	}
	code := int(status)
	resp := &http.Response{
		Status: strconv.Itoa(code) + " " + http.StatusText(code), StatusCode: code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: x, ContentLength: -1,
	}
	for fields := abi.Items(abi.Result()); len(fields) >= 2; fields = fields[2:] {
		resp.Header.Add(string(fields[0]), string(fields[1]))
	}
	if n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = n
	}
	return resp, nil
}

func (x *exchange) canceled() error {
	select {
	case <-x.cancel:
		return x.why()
	default:
		return nil
	}
}

// Read reads the response's body.
func (x *exchange) Read(p []byte) (int, error) {
	if err := x.canceled(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	at, size := abi.Data(p)
	n, err := abi.Called(abi.HTTPRead(x.request, at, size))
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return int(n), err
}

// Close ends the request.
func (x *exchange) Close() error {
	if x.ended {
		return nil
	}
	x.ended = true
	abi.Calling.Lock()
	defer abi.Calling.Unlock()
	_, err := abi.Called(abi.HTTPClose(x.request))
	return err
}
