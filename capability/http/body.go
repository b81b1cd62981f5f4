package httpclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/wasmatrix/wasmatrix/capability"
)

// upload is the body of a request, which several hops may send.
type upload struct {
	length int64 // -1 where nobody knows
	most   int64
	once   io.Reader        // where it can be read but once
	again  func() io.Reader // else reads it from its beginning

	mu sync.Mutex // guards err: the transport reads bodies while it waits for responses

	err error // why it could not be read to its end
}

// newUpload returns nil where there is no body.
func newUpload(r io.Reader, length, most int64) (*upload, error) {
	switch {
	case r == nil && length > 0:
		return nil, capability.Errorf(capability.InvalidRequest, "a body of %d bytes, and none is there", length)
	case length < -1:
		return nil, capability.Errorf(capability.InvalidRequest, "a body of %d bytes", length)
	case r == nil, length == 0:
		return nil, nil
	case length > most:
		return nil, capability.Errorf(capability.Exhausted, "a body of %d bytes: at most %d", length, most)
	}
	u := &upload{length: length, most: most, once: r}
	var left int
	switch whole := r.(type) {
	case *bytes.Reader:
		left, u.again = whole.Len(), func() io.Reader { again := *whole; return &again }
	case *strings.Reader:
		left, u.again = whole.Len(), func() io.Reader { again := *whole; return &again }
	default:
		return u, nil
	}
	switch {
	case length >= 0 && int64(left) != length:
		return nil, capability.Errorf(capability.InvalidRequest, "a body of %d bytes was announced, and %d are there", length, left)
	case int64(left) > most:
		return nil, capability.Errorf(capability.Exhausted, "a body of %d bytes: at most %d", left, most)
	}
	u.length = int64(left)
	return u, nil
}

// size is what a header says of the body.
func (u *upload) size() int64 {
	if u == nil {
		return 0
	}
	return u.length
}

func (u *upload) get() (io.ReadCloser, error) { return u.reader(), nil }

func (u *upload) reader() io.ReadCloser {
	if u.again != nil {
		return io.NopCloser(u.again()) // which net/http knows, and sends together with the header
	}
	return &uploadReader{of: u, r: u.once}
}

func (u *upload) fail(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = err
	}
	return err
}

// failure returns why the body could not be sent, if that is so.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// uploadReader reads the body once, and holds it to what was said of its length.
type uploadReader struct {
	of   *upload
	r    io.Reader
	read int64
}

func (b *uploadReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.read += int64(n)
	switch {
	case b.read > b.of.most:
		return n, b.of.fail(capability.Errorf(capability.Exhausted, "the body of the request has more than %d bytes", b.of.most))
	case b.of.length >= 0 && (b.read > b.of.length || errors.Is(err, io.EOF) && b.read < b.of.length):
		return n, b.of.fail(capability.Errorf(capability.InvalidRequest, "a body of %d bytes was announced, and %d were there", b.of.length, b.read))
	case err != nil && !errors.Is(err, io.EOF):
		return n, b.of.fail(capability.FromError(err))
	}
	return n, err
}

func (b *uploadReader) Close() error { return nil }

// download is the body of a response.
type download struct {
	from    io.ReadCloser
	left    int64
	tooLong error
	failed  func(error) error
	cancel  context.CancelFunc
	closed  atomic.Bool // may come while a Read waits
	err     error       // how it ended
}

func (d *download) Read(p []byte) (int, error) {
	if d.closed.Load() {
		return 0, capability.Errorf(capability.InvalidRequest, "the response is closed")
	}
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	if int64(len(p)) > d.left+1 {
		p = p[:d.left+1] // one more, to tell a body that ends here from one that is too long
	}
	n, err := d.from.Read(p)
	if int64(n) > d.left {
		n, d.err = int(d.left), d.tooLong
		d.left = 0
		return n, d.err
	}
	d.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		d.err = io.EOF
	case err != nil:
		d.err = d.failed(err)
	}
	return n, d.err
}

// Close ends the exchange: what was not read is not waited for.
func (d *download) Close() error {
	d.closed.Store(true)
	d.cancel()
	return d.from.Close()
}
