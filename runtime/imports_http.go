package runtime

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/wasmatrix/wasmatrix/capability"
)

// maxExchanges is how many HTTP requests an instance may have open.
const maxExchanges = 16

// exchange is an HTTP request that the guest has opened, and its response.
type exchange struct {
	ctx          context.Context
	cancel       context.CancelFunc
	session      *capability.Session
	capabilityID string
	request      *capability.HTTPRequest

	sent     int64          // bytes of the request's body, so far
	unwanted bool           // the other side takes no more of it
	body     *io.PipeWriter // where it goes to; nil once the guest has sent all, or where there is none
	began    bool           // the request is under way
	answered chan struct{}  // closed when response or err is set
	response *capability.HTTPResponse
	err      error
}

func httpOpen(ctx context.Context, h *host) (int64, error) {
	id, method, url := h.takeCapability(), h.text("the method"), h.text("the URL")
	header := h.bytes("the header", maxHeader)
	length, limit := h.takeLong(), h.takeTime()
	fields, ok := readList(header)
	switch {
	case !ok || len(fields)%2 != 0:
		h.refuse(invalidArgument("the header is no list of names and values, each with its length before it"))
	case length < -1:
		h.refuse(invalidArgument("a body of %d bytes: want -1 where that is not known", length))
	case limit < 0:
		h.refuse(invalidArgument("a limit of %s: want 0 for the provider's own, or more", limit))
	case len(h.exchanges) >= maxExchanges:
		h.refuse(capability.Errorf(capability.Exhausted, "%d requests are open, and no more are allowed: close some", maxExchanges))
	}
	s, err := h.ready()
	if err != nil {
		return 0, err
	}
	x := &exchange{session: s, capabilityID: id, answered: make(chan struct{}),
		request: &capability.HTTPRequest{Method: method, URL: url, Length: length, Limit: limit}}
	for n := 0; n < len(fields); n += 2 {
		x.request.Header = append(x.request.Header, capability.HTTPField{Name: fields[n], Value: fields[n+1]})
	}
	x.ctx, x.cancel = context.WithCancel(ctx)
	if length != 0 {
		x.request.Body, x.body = io.Pipe()
	}
	return int64(h.keep(x)), nil
}

// keep gives an exchange its number.
func (h *host) keep(x *exchange) int32 {
	if h.exchanges == nil {
		h.exchanges = map[int32]*exchange{}
	}
	for {
		if h.last++; h.last == math.MaxInt32 {
			h.last = 1
		}
		if h.exchanges[h.last] == nil {
			h.exchanges[h.last] = x
			return h.last
		}
	}
}

// takeExchange takes the number of an exchange.
func (h *host) takeExchange() *exchange {
	n := int32(h.take())
	x := h.exchanges[n]
	if x == nil {
		h.refuse(invalidArgument("there is no request %d, or no more", n))
	}
	return x
}

// begin makes the request, whose body the guest is about to write.
func (x *exchange) begin() {
	if x.began {
		return
	}
	x.began = true
	go x.exchange() // ends with x.ctx, and close waits for it
}

// exchange makes the request and waits for the head of the response.
func (x *exchange) exchange() {
	defer close(x.answered)
	defer func() {
		if p := recover(); p != nil { // a bug in a provider, which must not end more than this request
			x.err = capability.Errorf(capability.Internal, "wasmatrix failed in a request: %v", p)
		}
		if reader, ok := x.request.Body.(*io.PipeReader); ok && x.err != nil {
			_ = reader.CloseWithError(x.err) // nobody reads it any more
		}
	}()
	x.response, x.err = x.session.Request(x.ctx, x.capabilityID, x.request)
}

func httpWrite(_ context.Context, h *host) (int64, error) {
	x := h.takeExchange()
	data := h.bytes("the body", math.MaxInt32)
	if _, err := h.ready(); err != nil {
		return 0, err
	}
	left := x.request.Length - x.sent
	switch {
	case x.body == nil:
		return 0, invalidArgument("the request has no body, or has been sent")
	case x.request.Length >= 0 && int64(len(data)) > left:
		return 0, invalidArgument("%d bytes more than the body of %d that was announced", int64(len(data))-left, x.request.Length)
	}
	x.begin()
	// A request that fails closes the pipe, and so does the end of the instance.
	body := x.body
	stop := context.AfterFunc(x.ctx, func() { _ = body.CloseWithError(context.Canceled) })
	n, err := body.Write(data)
	stop()
	x.sent += int64(n)
	x.unwanted = x.unwanted || err != nil
	return int64(n), nil
}

func httpSend(ctx context.Context, h *host) (int64, error) {
	x := h.takeExchange()
	if _, err := h.ready(); err != nil {
		return 0, err
	}
	switch {
	case x.body != nil && x.request.Length > 0 && x.sent < x.request.Length && !x.unwanted:
		return 0, invalidArgument("the body has %d bytes, and %d were announced", x.sent, x.request.Length)
	case x.body == nil && x.began:
		return 0, invalidArgument("the request has been sent already")
	case x.body != nil:
		x.begin()
		_ = x.body.Close() // never fails
		x.body = nil
	default:
		x.began = true
		x.exchange()
	}
	select {
	case <-x.answered:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if x.err != nil {
		return 0, x.err
	}
	var fields []string
	for _, f := range x.response.Header {
		fields = append(fields, f.Name, f.Value)
	}
	h.result = list(fields...)
	return int64(x.response.Status), nil
}

func httpRead(_ context.Context, h *host) (int64, error) {
	x := h.takeExchange()
	to := h.bytes("the buffer for the body", math.MaxInt32)
	if _, err := h.ready(); err != nil {
		return 0, err
	}
	switch {
	case x.body != nil || !x.began:
		return 0, invalidArgument("the request has not been sent yet")
	case len(to) == 0 || errors.Is(x.err, io.EOF):
		return 0, nil
	case x.err != nil:
		return 0, x.err
	}
	for {
		n, err := x.response.Body.Read(to)
		x.err = err
		switch {
		case n > 0:
			return int64(n), nil
		case errors.Is(err, io.EOF):
			return 0, nil
		case err != nil:
			return 0, err
		}
	}
}

func httpClose(_ context.Context, h *host) (int64, error) {
	n := int32(h.take())
	if x := h.exchanges[n]; x != nil {
		delete(h.exchanges, n)
		x.close()
	}
	return 0, nil
}

// close ends the exchange, wherever it is.
func (x *exchange) close() {
	x.cancel()
	if x.body != nil {
		_ = x.body.CloseWithError(context.Canceled) // never fails
	}
	if !x.began {
		return
	}
	<-x.answered // at once: its context has ended
	if x.response != nil {
		_ = x.response.Body.Close() // there is nobody to tell
	}
}
